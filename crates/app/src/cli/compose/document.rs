//! A YAML document as a tree whose every node knows its line. What a hostile or broken file could cost is bounded: bytes,
//! depth, and nodes after aliases and merges are written out (a few lines of aliases can stand for billions).

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScanError, Span};

/// Longest file that is read, bytes. The largest Compose files in use have some tens of kilobytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Deepest nesting; Compose's own schema needs about ten.
const MAX_DEPTH: usize = 64;
/// Most nodes with every alias and merge written out.
const MAX_NODES: usize = 100_000;

/// Why a text is no document that can be judged.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The parser's own complaint, with line and column.
    #[error("it is no YAML")]
    Yaml(#[from] ScanError),
    /// Compose merges several documents in an order of its own.
    #[error("line {0}: a second document begins; lint them one by one")]
    SecondDocument(usize),
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// A key that is a list or a mapping.
    #[error("line {0}: a key is no text")]
    Key(usize),
    /// Readers disagree which one counts.
    #[error("line {line}: the key {key:?} comes twice in one mapping")]
    DuplicateKey {
        /// Where it comes again.
        line: usize,
        /// Which.
        key: String,
    },
    /// `<<` with something that has no keys.
    #[error("line {0}: << wants a mapping, or a list of mappings")]
    Merge(usize),
    /// An alias of a node that is not there, or that contains it.
    #[error("line {0}: an alias points to nothing that is complete")]
    Alias(usize),
    /// [`MAX_DEPTH`].
    #[error("line {0}: it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep(usize),
    /// [`MAX_NODES`].
    #[error("line {0}: with its aliases written out it has more than {MAX_NODES} nodes")]
    TooMany(usize),
}

/// A value and the line on which it begins, counted from 1.
#[derive(Debug, Clone)]
pub struct Node {
    pub line: usize,
    pub value: Value,
}

/// Everything that is neither list nor mapping is text, as it is written: `no`, `0x10` and `1_000` mean different things to
/// different readers, so each rule decides by itself.
#[derive(Debug, Clone)]
pub enum Value {
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: String,
    /// Where the key stands.
    pub line: usize,
    pub node: Node,
}

impl Node {
    /// Reads the one document of a text.
    pub fn parse(text: &str) -> Result<Node, DocumentError> {
        let mut builder = Builder::default();
        for event in Parser::new_from_str(text) {
            let (event, span) = event?;
            builder.take(event, span)?;
        }
        builder.root.ok_or(DocumentError::Empty)
    }

    /// The text of a scalar; a plain `null` or `~` is none.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::List(_) | Value::Mapping(_) => None,
        }
    }

    /// The items of a list; nothing else has any.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            Value::Text(_) | Value::Mapping(_) => &[],
        }
    }

    /// The entries of a mapping; nothing else has any.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(entries) => entries,
            Value::Text(_) | Value::List(_) => &[],
        }
    }

    /// The entry with that key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The node at the end of that path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter()
            .try_fold(self, |node, key| Some(&node.entry(key)?.node))
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Text(_) => 0,
            Value::List(items) => items.iter().map(Node::count).sum(),
            Value::Mapping(entries) => entries.iter().map(|entry| 1 + entry.node.count()).sum(),
        }
    }

    fn depth(&self) -> usize {
        let below = match &self.value {
            Value::Text(_) => None,
            Value::List(items) => items.iter().map(Node::depth).max(),
            Value::Mapping(entries) => entries.iter().map(|entry| entry.node.depth()).max(),
        };
        1 + below.unwrap_or_default()
    }
}

/// A list or mapping whose end has not come.
struct Open {
    line: usize,
    anchor: usize,
    removed: bool,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        merged: Vec<Node>,
        key: Option<(String, usize)>,
    },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), DocumentError> {
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(DocumentError::SecondDocument(line));
                }
            }
            Event::Scalar(text, _, anchor, tag) => {
                let removed = tag.as_ref().is_some_and(|tag| is_reset(tag));
                let value = Value::Text(text.into_owned());
                self.add(Node { line, value }, anchor, removed)?;
            }
            Event::SequenceStart(anchor, tag) => {
                let removed = tag.as_ref().is_some_and(|tag| is_reset(tag));
                self.begin(line, anchor, removed, Content::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                let removed = tag.as_ref().is_some_and(|tag| is_reset(tag));
                let content = Content::Mapping {
                    entries: Vec::new(),
                    merged: Vec::new(),
                    key: None,
                };
                self.begin(line, anchor, removed, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => self.alias(anchor, line)?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn begin(
        &mut self,
        line: usize,
        anchor: usize,
        removed: bool,
        content: Content,
    ) -> Result<(), DocumentError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(DocumentError::TooDeep(line));
        }
        self.open.push(Open {
            line,
            anchor,
            removed,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), DocumentError> {
        let Some(Open {
            line,
            anchor,
            removed,
            content,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Mapping {
                mut entries,
                merged,
                ..
            } => {
                for source in merged {
                    self.merge(&mut entries, &source)?;
                }
                Value::Mapping(entries)
            }
        };
        self.add(Node { line, value }, anchor, removed)
    }

    /// What the mapping itself says wins over what is merged, and what is merged first over what comes later.
    fn merge(&mut self, entries: &mut Vec<Entry>, source: &Node) -> Result<(), DocumentError> {
        let mappings = match &source.value {
            Value::Mapping(_) => std::slice::from_ref(source),
            Value::List(items) => items,
            Value::Text(_) => return Err(DocumentError::Merge(source.line)),
        };
        for mapping in mappings {
            if !matches!(mapping.value, Value::Mapping(_)) {
                return Err(DocumentError::Merge(mapping.line));
            }
            for entry in mapping.entries() {
                if entries.iter().all(|own| own.key != entry.key) {
                    self.spend(entry.node.count(), source.line)?;
                    entries.push(entry.clone());
                }
            }
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), DocumentError> {
        let target = self
            .anchors
            .get(&anchor)
            .ok_or(DocumentError::Alias(line))?;
        let (count, depth) = (target.count(), target.depth());
        if self.open.len() + depth > MAX_DEPTH {
            return Err(DocumentError::TooDeep(line));
        }
        // Before it is written out.
        self.spend(count - 1, line)?;
        let target = self.anchors.get(&anchor).cloned();
        self.add(target.ok_or(DocumentError::Alias(line))?, 0, false)
    }

    /// Puts a complete node where it belongs. One that `!reset` takes away is not there.
    fn add(&mut self, node: Node, anchor: usize, removed: bool) -> Result<(), DocumentError> {
        self.spend(1, node.line)?;
        if anchor != 0 {
            // A second copy, so it counts again.
            self.spend(node.count(), node.line)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            Content::List(items) => {
                if !removed {
                    items.push(node);
                }
            }
            Content::Mapping {
                entries,
                merged,
                key,
            } => match key.take() {
                None => match node.value {
                    Value::Text(text) => *key = Some((text, node.line)),
                    Value::List(_) | Value::Mapping(_) => {
                        return Err(DocumentError::Key(node.line));
                    }
                },
                Some((key, _)) if key == "<<" => merged.push(node),
                Some((key, line)) => {
                    if entries.iter().any(|entry| entry.key == key) {
                        return Err(DocumentError::DuplicateKey { line, key });
                    }
                    if !removed {
                        entries.push(Entry { key, line, node });
                    }
                }
            },
        }
        Ok(())
    }

    fn spend(&mut self, nodes: usize, line: usize) -> Result<(), DocumentError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(DocumentError::TooMany(line));
        }
        Ok(())
    }
}

/// `!reset` is Compose's own tag: what it stands before is taken away.
fn is_reset(tag: &saphyr_parser::Tag) -> bool {
    tag.handle == "!" && tag.suffix == "reset"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Node, String> {
        Node::parse(text).map_err(|error| error.to_string())
    }

    #[test]
    fn nodes_know_their_lines() {
        let root = parse("a:\n  b: 1\n  c:\n    - x\n    - y\n").unwrap();
        assert_eq!(root.at(&["a", "b"]).unwrap().line, 2);
        assert_eq!(root.at(&["a", "c"]).unwrap().items()[1].line, 5);
        assert_eq!(root.at(&["a"]).unwrap().entry("c").unwrap().line, 3);
    }

    #[test]
    fn aliases_and_merges_are_written_out() {
        let root = parse(
            "base: &base {read_only: true, user: a}\nmore: &more {user: b, init: x}\none: {<<: *base, user: c}\n\
             two: {<<: [*base, *more]}\nthree: *base\nfour: {user: !reset null, init: y}\n",
        )
        .unwrap();
        for (path, expected) in [
            (["one", "user"], Some("c")),
            (["one", "read_only"], Some("true")),
            (["two", "user"], Some("a")),
            (["two", "init"], Some("x")),
            (["three", "user"], Some("a")),
            (["four", "user"], None),
            (["four", "init"], Some("y")),
        ] {
            assert_eq!(root.at(&path).and_then(Node::text), expected, "{path:?}");
        }
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        for (text, why) in [
            ("", "it is empty"),
            ("# nothing\n", "it is empty"),
            (
                "a: 1\n---\nb: 2\n",
                "line 2: a second document begins; lint them one by one",
            ),
            (
                "a: 1\na: 2\n",
                "line 2: the key \"a\" comes twice in one mapping",
            ),
            ("? [a]\n: b\n", "line 1: a key is no text"),
            (
                "a: {<<: 1}\n",
                "line 1: << wants a mapping, or a list of mappings",
            ),
            (
                "a: &a [*a]\n",
                "line 1: an alias points to nothing that is complete",
            ),
            ("a: [\n", "it is no YAML"),
            ("a: *b\n", "it is no YAML"),
        ] {
            assert_eq!(parse(text).map(drop), Err(why.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_billion_laughs_are_not_laughed() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let below = format!("*a{}, ", level - 1).repeat(9);
            text += &format!("a{level}: &a{level} [{below}]\n");
        }
        let started = std::time::Instant::now();
        let refused = parse(&text).unwrap_err();
        assert!(refused.contains("more than 100000 nodes"), "{refused}");
        assert!(started.elapsed().as_secs() < 5);
        // The control: the same, and few.
        assert!(parse(text.lines().next().unwrap()).is_ok());
        // Merges multiply as aliases do, and depth is bounded by itself.
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(parse(&deep).unwrap_err().contains("nested deeper"), "flow");
        assert!(
            parse(&"[".repeat(100_000)).is_err(),
            "the parser's own bound"
        );
        let chain: String = (1..200)
            .map(|level| format!("b{level}: &b{level} [*b{}]\n", level - 1))
            .collect();
        let refused = parse(&format!("b0: &b0 x\n{chain}")).unwrap_err();
        assert!(refused.contains("nested deeper"), "{refused}");
    }

    proptest::proptest! {
        #[test]
        fn garbage_does_not_panic(text in "[-a:&*<{}\\[\\]!#,?| \n\"'0~]{0,200}") {
            let _ = Node::parse(&text);
        }
    }
}
