//! The few programs that the fake knows, and as much of a shell as the contract needs.

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// Ends at once with that code.
    Exit(i32),
    /// Writes these bytes.
    Print(Vec<u8>),
    /// Copies standard input.
    CopyInput,
    /// Writes that file.
    ShowFile(Vec<u8>),
    /// Waits so many milliseconds.
    Sleep(u64),
    /// Writes so many zero bytes.
    Zeros(u64),
    /// Writes the numbers of a range, one a line.
    Count(u64, u64),
    /// Writes without end.
    Flood,
    /// Writes the working directory.
    ShowDirectory,
    /// Writes the environment.
    ShowEnvironment,
    /// Connects to a port of loopback, writes bytes there, and copies what comes back.
    Talk(Talk),
    /// Runs a script.
    Shell(Vec<Statement>),
    /// Takes messages and answers them.
    ClaudeCode,
}

/// A message to Claude Code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) uuid: String,
    /// The file that it is to wait for.
    pub(super) awaited: Option<Vec<u8>>,
}

/// What a program says, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Talk {
    pub(super) transport: Transport,
    pub(super) port: u16,
    pub(super) said: Vec<u8>,
    /// Only once all has come back.
    pub(super) said_last: bool,
}

/// How a program connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Stream,
    Datagram,
}

/// One statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) action: ShellAction,
    pub(super) target: Target,
    pub(super) in_background: bool,
}

/// What a statement does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ShellAction {
    /// Runs a program.
    Run(Program),
    /// `exit N`.
    Exit(i32),
    /// `trap '' TERM`.
    IgnoreTerminate,
    /// A program that does not exist.
    NotFound(String),
}

/// Where a statement's output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// As it stands.
    Stdout,
    /// `>&2`.
    Stderr,
    /// `> FILE`.
    File(Vec<u8>),
}

/// The program of that name with these arguments; `None` when there is none.
pub(super) fn parse(argv: &[Vec<u8>]) -> Option<Program> {
    let (program, arguments) = argv.split_first()?;
    let name = program.rsplit(|byte| *byte == b'/').next()?;
    let text = |index: usize| {
        arguments
            .get(index)
            .and_then(|argument| std::str::from_utf8(argument).ok())
    };
    Some(match name {
        b"true" => Program::Exit(0),
        b"false" => Program::Exit(1),
        b"echo" => Program::Print([arguments.join(&b' '), b"\n".to_vec()].concat()),
        b"printf" => Program::Print(format(arguments)),
        b"cat" => arguments
            .first()
            .map_or(Program::CopyInput, |path| Program::ShowFile(path.clone())),
        b"sleep" => Program::Sleep((text(0)?.parse::<f64>().ok()? * 1000.0) as u64),
        b"head" if text(0) == Some("-c") && text(2) == Some("/dev/zero") => {
            Program::Zeros(text(1)?.parse().ok()?)
        }
        b"seq" => Program::Count(text(0)?.parse().ok()?, text(1)?.parse().ok()?),
        b"yes" => Program::Flood,
        b"pwd" => Program::ShowDirectory,
        b"env" => Program::ShowEnvironment,
        b"bash" if text(0) == Some("-c") => talk(text(1)?)?,
        b"sh" if text(0) == Some("-c") => Program::Shell(parse_script(text(1)?)),
        _ => return None,
    })
}

/// The message in a line of Claude Code's standard input, if it is one. As much of JSON is read as the messages of tests have.
pub(super) fn message(line: &[u8]) -> Option<Message> {
    let line = std::str::from_utf8(line).ok()?;
    let field = |name: &str| {
        let (_, rest) = line.split_once(&format!("\"{name}\":\""))?;
        rest.split('"').next()
    };
    let awaited = field("content")?.strip_prefix("wait for ");
    Some(Message {
        uuid: field("uuid")?.to_owned(),
        awaited: awaited.map(|path| path.as_bytes().to_vec()),
    })
}

/// `exec 3<>/dev/tcp/127.0.0.1/PORT; COMMAND >&3; …`, or the same with `udp`, where the command is `seq FIRST LAST` or
/// `printf TEXT`, and the rest copies what comes back; or `exec 3<>…; cat <&3; COMMAND >&3`, which speaks last.
fn talk(script: &str) -> Option<Program> {
    let rest = script.strip_prefix("exec 3<>/dev/")?;
    let (transport, rest) = rest.split_once("/127.0.0.1/")?;
    let transport = match transport {
        "tcp" => Transport::Stream,
        "udp" => Transport::Datagram,
        _ => return None,
    };
    let (port, rest) = rest.split_once("; ")?;
    let last = rest.strip_prefix("cat <&3; ");
    let command = match last {
        Some(command) => command.strip_suffix(" >&3")?,
        None => rest.split_once(" >&3; ")?.0,
    };
    let command: Vec<_> = command
        .split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect();
    let program = parse(&command)?;
    let said = if let Program::Print(said) = program {
        said
    } else if let Program::Count(first, last) = program {
        let numbers: String = (first..=last).map(|number| format!("{number}\n")).collect();
        numbers.into_bytes()
    } else {
        return None;
    };
    Some(Program::Talk(Talk {
        transport,
        port: port.parse().ok()?,
        said,
        said_last: last.is_some(),
    }))
}

/// `printf`: `%s` takes the next argument, and the format is repeated while there are any.
fn format(arguments: &[Vec<u8>]) -> Vec<u8> {
    let Some((format, mut values)) = arguments.split_first() else {
        return Vec::new();
    };
    let format = replace(format, b"\\n", b"\n");
    let places = format.windows(2).filter(|pair| pair == b"%s").count();
    let mut printed = Vec::new();
    loop {
        let mut rest = &format[..];
        while let Some(place) = rest.windows(2).position(|pair| pair == b"%s") {
            printed.extend(&rest[..place]);
            if let Some((value, others)) = values.split_first() {
                printed.extend(value);
                values = others;
            }
            rest = &rest[place + 2..];
        }
        printed.extend(rest);
        if places == 0 || values.is_empty() {
            return printed;
        }
    }
}

fn replace(text: &[u8], from: &[u8; 2], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.windows(2).position(|pair| pair == from) {
        replaced.extend(&rest[..place]);
        replaced.extend(to);
        rest = &rest[place + 2..];
    }
    replaced.extend(rest);
    replaced
}

/// A word or a sign of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    ToStderr,
    ToFile,
    Semicolon,
    Background,
}

fn parse_script(script: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut current = Vec::new();
    for token in tokens(script).into_iter().chain([Token::Semicolon]) {
        match token {
            Token::Semicolon | Token::Background => {
                statements.extend(statement(&current, token == Token::Background));
                current.clear();
            }
            Token::Word(_) | Token::ToStderr | Token::ToFile => current.push(token),
        }
    }
    statements
}

fn statement(tokens: &[Token], in_background: bool) -> Option<Statement> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut target = Target::Stdout;
    let mut tokens = tokens.iter();
    while let Some(token) = tokens.next() {
        match (token, &target) {
            (Token::Word(word), _) => words.push(word.clone().into_bytes()),
            (Token::ToStderr, _) => target = Target::Stderr,
            (Token::ToFile, _) => {
                if let Some(Token::Word(path)) = tokens.next() {
                    target = Target::File(path.clone().into_bytes());
                }
            }
            (Token::Semicolon | Token::Background, _) => {}
        }
    }
    if words.first().is_some_and(|word| word == b"exec") {
        words.remove(0);
    }
    let number =
        |word: Option<&Vec<u8>>| word.and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
    let action = match words.first()?.as_slice() {
        b"exit" => ShellAction::Exit(number(words.get(1)).unwrap_or(0)),
        b"trap" => ShellAction::IgnoreTerminate,
        name => match parse(&words) {
            Some(program) => ShellAction::Run(program),
            None => ShellAction::NotFound(String::from_utf8_lossy(name).into_owned()),
        },
    };
    Some(Statement {
        action,
        target,
        in_background,
    })
}

fn tokens(script: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut characters = script.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' => {}
            ';' | '\n' => tokens.push(Token::Semicolon),
            '&' => tokens.push(Token::Background),
            '>' if characters.next_if_eq(&'&').is_some() => {
                characters.next_if_eq(&'2');
                tokens.push(Token::ToStderr);
            }
            '>' => tokens.push(Token::ToFile),
            first => tokens.push(word(first, &mut characters)),
        }
    }
    tokens
}

fn word(first: char, characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Token {
    let mut word = String::new();
    let mut next = Some(first);
    while let Some(character) = next {
        match character {
            '\'' | '"' => word.extend(characters.by_ref().take_while(|inner| *inner != character)),
            other => word.push(other),
        }
        next = characters.next_if(|following| !" \t\n;&>".contains(*following));
    }
    Token::Word(word)
}
