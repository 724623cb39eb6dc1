//! `serve`: becomes the server.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    process::Command,
    time::{Duration, Instant},
};

use http_door::Door;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::{
    CliError, Context, EXIT_OK, VERSION, arguments::ServeArguments, context::this_program,
    hand_over,
};
use crate::{
    audit_sinks::StandardError,
    config::{Environment, Running},
    front::{FrontError, ReadyLine},
    server::{
        self, ElectionError, House, Lock, LogWriter, Options, handshake::Mode, hangups,
        read_address, reload_on_hangups, stop_on_signals, take_lock,
    },
    wiring,
};

/// How long a new server waits for one that is just leaving: it leaves within 5 s.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a server that stays asks one that comes and goes for its place.
const LAST_CLIENT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between two tries for the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// What is logged when nobody says anything else.
const DEFAULT_LOG_FILTER: &str = "info";

/// The environment that the server goes by. A process that has credentials in its own and is to stay becomes another one.
pub(super) fn environment(
    arguments: &ServeArguments,
    environment: Environment,
) -> Result<Environment, CliError> {
    let is_stage = arguments.on_demand && !arguments.detached;
    if arguments.credentials_on_stdin {
        return hand_over::take(environment).map_err(CliError::Runtime);
    }
    if !is_stage {
        hand_over::to_oneself(&environment).map_err(CliError::Runtime)?;
    }
    Ok(environment)
}

pub(super) fn run(context: &Context, arguments: &ServeArguments) -> Result<u8, CliError> {
    match (arguments.on_demand, arguments.detached) {
        (true, false) => detach(context),
        (true, true) => serve_on_demand(context),
        (false, _) => serve_in_foreground(context),
    }
}

/// The first process of an on-demand start: leaves the client's session and process tree, so that neither a closed
/// terminal nor a client that ends its children ends the server.
fn detach(context: &Context) -> Result<u8, CliError> {
    rustix::process::setsid().map_err(|errno| CliError::Runtime(errno.into()))?;
    let mut server = Command::new(this_program());
    server
        .args(std::env::args_os().skip(1))
        .arg("--detached")
        .current_dir("/");
    hand_over::to(&mut server, &context.environment).map_err(CliError::Runtime)?;
    server.spawn().map(|_| EXIT_OK).map_err(CliError::Runtime)
}

fn serve_on_demand(context: &Context) -> Result<u8, CliError> {
    let served = LogWriter::as_stderr(&context.config.paths.log_file())
        .map_err(|source| CliError::File {
            path: context.config.paths.log_file(),
            source,
        })
        .and_then(|writer| {
            log_to(context, move || writer.clone());
            let lock = take_lock_from_a_leaving_server(context, None)?;
            serve(context, lock, Some(context.config.idle_exit), || {
                ReadyLine::Ready.send()
            })
        });
    match served {
        Ok(()) => Ok(EXIT_OK),
        Err(CliError::Election(ElectionError::Taken { .. })) => {
            ReadyLine::Taken.send().map_err(CliError::Terminal)?;
            Ok(EXIT_OK)
        }
        Err(error) => {
            // Also after the ready line, when nobody reads it any more.
            let _ = ReadyLine::Failed {
                message: error.chain(),
            }
            .send();
            tracing::error!(error = error.chain(), "the server ends");
            Err(error)
        }
    }
}

fn serve_in_foreground(context: &Context) -> Result<u8, CliError> {
    log_to(context, io::stderr);
    let lock = take_lock_from_an_idle_server(context)?;
    serve(context, lock, None, || Ok(()))?;
    Ok(EXIT_OK)
}

fn log_to<W>(context: &Context, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = context
        .environment
        .log_filter()
        .unwrap_or(DEFAULT_LOG_FILTER);
    let mut filter =
        EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG_FILTER));
    // Whatever is asked for: below this level rmcp logs whole requests, values of the environment included.
    // AWS's library logs answers with keys in them when it cannot read them; what matters of its failures is said here.
    for quiet in ["rmcp=warn", "aws=off"] {
        if let Ok(quiet) = quiet.parse() {
            filter = filter.add_directive(quiet);
        }
    }
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(true);
    // A second subscriber is an error only within one process's tests.
    let _ = subscriber.with_writer(writer).try_init();
}

/// Opens the HTTP door. Nobody is let in before everything stands.
async fn open_door(settings: &http_door::Settings, house: &dyn House) -> Result<Door, CliError> {
    let has_keys = house.has_keys();
    let door = Door::open(settings.clone(), has_keys)
        .await
        .map_err(|error| CliError::Build(error.into()))?;
    tracing::info!(url = door.url(), "serving MCP over HTTP");
    if !has_keys && settings.oauth.is_none() {
        tracing::warn!(
            "nobody has a key yet: `claude-code-mcp keys create` makes one, while the server runs as well"
        );
    }
    Ok(door)
}

/// Whoever made a key before the first `serve` has started a server on demand by it. That one leaves its place if it has
/// nothing to do.
fn take_lock_from_an_idle_server(context: &Context) -> Result<Lock, CliError> {
    match take_lock(&context.config.paths) {
        Err(ElectionError::Taken { .. }) => {}
        result => return Ok(result?),
    }
    let deadline = Instant::now() + LAST_CLIENT_TIMEOUT;
    loop {
        let asked = read_address(&context.config.paths).map(|address| address.pid);
        match context.connect_existing(Mode::Succeed) {
            Ok(_leaving) => return take_lock_from_a_leaving_server(context, asked),
            // The command that has just ended may still count as a client.
            Err(CliError::Front(FrontError::Refused(_))) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(CliError::Front(FrontError::Refused(why))) => {
                let address = read_address(&context.config.paths);
                return Err(ElectionError::Stays { address, why }.into());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits while the last server is on its way out; gives up as soon as one answers. The process that has said that it leaves may go
/// on to for a moment.
fn take_lock_from_a_leaving_server(
    context: &Context,
    leaving: Option<u32>,
) -> Result<Lock, CliError> {
    let paths = &context.config.paths;
    let deadline = Instant::now() + LEAVING_TIMEOUT;
    loop {
        match take_lock(paths) {
            Err(ElectionError::Taken { address }) if Instant::now() < deadline => {
                let answers = read_address(paths)
                    .filter(|found| Some(found.pid) != leaving)
                    .is_some_and(|found| UnixStream::connect(found.socket).is_ok());
                if answers {
                    return Err(ElectionError::Taken { address }.into());
                }
                std::thread::sleep(LOCK_PAUSE);
            }
            result => return Ok(result?),
        }
    }
}

fn serve(
    context: &Context,
    lock: Lock,
    idle_exit: Option<Duration>,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let served = runtime.block_on(async {
        // Before anything is built: a signal while the house is being built must not tear it in half.
        let stop = stop_on_signals().map_err(CliError::Runtime)?;
        let hangups = hangups().map_err(CliError::Runtime)?;
        let running = Running::new(
            context.config.clone(),
            context.flags.clone(),
            context.environment.clone(),
        );
        let standard_error = match idle_exit {
            Some(_) => StandardError::OwnLogFile,
            None => StandardError::OfTheOperator,
        };
        let house = wiring::build(running, standard_error)
            .await
            .map_err(CliError::Build)?;
        let door = match &context.config.http {
            // A server that comes and goes with its clients is not where others would look for it.
            Some(settings) if idle_exit.is_none() => {
                Some(open_door(settings, house.as_ref()).await?)
            }
            Some(_) | None => None,
        };
        let elected = lock.listen(&context.config.paths, VERSION)?;
        tracing::info!(socket = %elected.socket().display(), version = VERSION, "listening");
        tokio::spawn(reload_on_hangups(hangups, house.clone(), stop.clone()));
        ready().map_err(CliError::Terminal)?;
        let options = Options {
            version: VERSION.to_owned(),
            idle_exit,
            uid: context.environment.uid(),
            http: door.as_ref().map(Door::url),
        };
        let serving = door.map(|door| {
            let service = mcp::HttpService::new(house.road(), stop.clone());
            tokio::spawn(door.serve(house.road(), service, stop.clone()))
        });
        server::run(elected, house, options, stop).await?;
        if let Some(serving) = serving {
            // Bounded by itself. A panic in there has taken the door away, which its task has said.
            let _panicked = serving.await;
        }
        Ok(())
    });
    // Blocking work that hangs must not keep the process: everything durable is done.
    runtime.shutdown_timeout(Duration::from_millis(200));
    let _ = io::stdout().flush();
    served
}
