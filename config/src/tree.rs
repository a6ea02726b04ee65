//! A TOML document as an owned tree whose every key and value knows its line.
//!
//! The schema reads this tree instead of deserialising, because a deserialiser stops at the first mistake and drops
//! the place of it. All syntax errors of a document are reported together.

use std::fmt;

use toml::de::{DeTable, DeValue};

/// A value and the line where it stands, counted from 1; 0 when it stands in no file.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Clone)]
pub(crate) enum Kind {
    Text(String),
    /// `None` when the number has more than 127 bits.
    Integer(Option<i128>),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    List(Vec<Node>),
    Table(Table),
}

/// The entries of a table in the order of the file.
#[derive(Clone, Default)]
pub(crate) struct Table(pub(crate) Vec<Entry>);

/// A key with its value.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) node: Node,
}

/// A mistake in the TOML syntax itself.
pub(crate) struct SyntaxError {
    pub(crate) line: Option<usize>,
    pub(crate) message: String,
}

/// Reads a document; on failure gives every syntax error that the parser can tell apart, in the order of the lines.
pub(crate) fn parse(text: &str) -> Result<Table, Vec<SyntaxError>> {
    let lines = Lines::of(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(lines.table(document.get_ref()));
    }
    let mut errors: Vec<_> = errors
        .iter()
        .map(|error| SyntaxError {
            line: error.span().map(|span| lines.at(span.start)),
            message: error.message().to_owned(),
        })
        .collect();
    errors.sort_by_key(|error| error.line);
    Err(errors)
}

/// The byte offsets at which lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at + 1).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset) + 1
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| Entry {
                name: key.get_ref().clone().into_owned(),
                line: self.at(key.span().start),
                node: self.node(value.span().start, value.get_ref()),
            })
            .collect();
        entries.sort_by_key(|entry| entry.line);
        Table(entries)
    }

    fn node(&self, offset: usize, value: &DeValue<'_>) -> Node {
        let kind = match value {
            DeValue::String(text) => Kind::Text(text.clone().into_owned()),
            DeValue::Integer(number) => {
                Kind::Integer(i128::from_str_radix(number.as_str(), number.radix()).ok())
            }
            DeValue::Float(number) => Kind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(value) => Kind::Boolean(*value),
            DeValue::Datetime(value) => Kind::Datetime(value.to_string()),
            DeValue::Array(items) => {
                Kind::List(items.iter().map(|item| self.node(item.span().start, item.get_ref())).collect())
            }
            DeValue::Table(table) => Kind::Table(self.table(table)),
        };
        Node { line: self.at(offset), kind }
    }
}

impl Table {
    /// Entries called `key`; kebab-case and snake_case are the same name.
    pub(crate) fn named<'a, 'k>(&'a self, key: &'k str) -> impl Iterator<Item = &'a Entry> + use<'a, 'k> {
        self.0.iter().filter(move |entry| same_key(&entry.name, key))
    }
}

impl Node {
    /// A value that stands in no file, such as an environment variable's.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { line: 0, kind: Kind::Text(text.into()) }
    }
}

/// Shown in messages; never used for a secret. Long texts are cut, control characters escaped.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 60;
        match &self.kind {
            Kind::Text(text) if text.chars().count() > LONGEST => {
                write!(f, "{:?}", text.chars().take(LONGEST).chain(['…']).collect::<String>())
            }
            Kind::Text(text) => write!(f, "{text:?}"),
            Kind::Integer(Some(number)) => write!(f, "{number}"),
            Kind::Integer(None) => f.write_str("the number"),
            Kind::Float(number) => write!(f, "{number:?}"),
            Kind::Boolean(value) => write!(f, "{value}"),
            Kind::Datetime(value) => f.write_str(value),
            Kind::List(_) => f.write_str("a list"),
            Kind::Table(_) => f.write_str("a table"),
        }
    }
}

/// Whether two spellings name the same key: upstream 25.12 and later takes `max_upload_size` for `max-upload-size`.
pub(crate) fn same_key(a: &str, b: &str) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte };
    a.len() == b.len() && a.bytes().map(fold).eq(b.bytes().map(fold))
}

/// A key as it has to be written in the file: bare if TOML allows it, else quoted with control characters escaped.
pub(crate) fn written_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { format!("{name:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(table: &Table, key: &str) -> (usize, usize) {
        let entry = table.named(key).next().unwrap();
        (entry.line, entry.node.line)
    }

    #[test]
    fn keys_and_values_know_their_lines() {
        let tree = parse("a = 1\n\n[b-c]\nd_e = [\n  2,\n  3]\n").unwrap_or_default();
        assert_eq!(line_of(&tree, "a"), (1, 1));
        assert_eq!(line_of(&tree, "b_c"), (3, 3));
        let Kind::Table(inner) = &tree.0[1].node.kind else { panic!("b-c is a table") };
        assert_eq!(line_of(inner, "d-e"), (4, 4));
        let Kind::List(items) = &inner.0[0].node.kind else { panic!("d_e is a list") };
        assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn all_syntax_errors_come_at_once_and_in_order() {
        let errors = parse("a = 1\na = 2\nq = nope\nb = \"x\n").err().unwrap();
        assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn a_syntax_error_does_not_repeat_the_text_of_the_file() {
        for text in [
            "secret = hunter2\n",
            "secret = \"hunter2\n",
            "hunter2\n",
            "[hunter2\n",
            "secret = 'hunter2' hunter2\n",
        ] {
            for error in parse(text).err().unwrap() {
                assert!(!error.message.contains("hunter2"), "{}", error.message);
            }
        }
    }

    #[test]
    fn shown_values_are_short_and_free_of_control_characters() {
        assert_eq!(Node::text("a\u{1b}[31m\nb").to_string(), r#""a\u{1b}[31m\nb""#);
        assert!(Node::text("x".repeat(1000)).to_string().len() < 80);
    }
}
