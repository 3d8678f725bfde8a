//! Edits JSON text in place: everything that an edit does not name keeps its bytes, formatting included.
//!
//! Works on text that `serde_json` has accepted, so nesting is bounded by its limit of 128.

use std::ops::Range;

use serde_json::Value;

/// Deepest nesting that is edited.
const DEPTH_LIMIT: usize = 128;

/// Why an edit was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonTextError(String);

impl std::fmt::Display for JsonTextError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JsonTextError {}

impl From<serde_json::Error> for JsonTextError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

type Result<T> = std::result::Result<T, JsonTextError>;

fn refused<T>(why: &str) -> Result<T> {
    Err(JsonTextError(why.to_owned()))
}

/// JSON text and where its values stand.
#[derive(Debug, Clone)]
pub struct Document {
    text: String,
    root: Node,
    style: Style,
}

#[derive(Debug, Clone)]
struct Node {
    span: Range<usize>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Object(Vec<(String, Item)>),
    Array(Vec<Item>),
    Scalar,
}

/// A member or an element: `start` is where its key or its value begins.
#[derive(Debug, Clone)]
struct Item {
    start: usize,
    value: Node,
}

/// One step from a value to a value in it.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// To a member of an object.
    Key(&'a str),
    /// To an element of an array.
    Index(usize),
}

/// How a document is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Style {
    newline: &'static str,
    /// One level; `None` for a document on one line.
    indent: Option<String>,
}

impl Document {
    /// Takes JSON text; a byte order mark stays where it is.
    ///
    /// # Errors
    /// When the text is not strict JSON.
    pub fn parse(text: &str) -> Result<Self> {
        let body = text.trim_start_matches('\u{feff}');
        serde_json::from_str::<Value>(body)?;
        let mut scanner = Scanner { text: text.as_bytes(), at: text.len() - body.len() };
        scanner.blanks();
        let root = scanner.value(0)?;
        let style = Style::of(text, &root);
        Ok(Self { text: text.to_owned(), root, style })
    }

    /// The text as it is now.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value at a path.
    pub fn get(&self, path: &[Step<'_>]) -> Option<Value> {
        let node = self.node(path)?;
        serde_json::from_str(&self.text[node.span.clone()]).ok()
    }

    /// Adds a member at the end of the object at `path`, or an element (no key) at the end of the array there.
    ///
    /// # Errors
    /// When there is no such object or array.
    pub fn append(&mut self, path: &[Step<'_>], key: Option<&str>, value: &Value) -> Result<()> {
        let Some(node) = self.node(path) else { return refused("nothing at that place") };
        let items: Vec<&Item> = match (&node.kind, key) {
            (Kind::Object(members), Some(_)) => members.iter().map(|(_, item)| item).collect(),
            (Kind::Array(elements), None) => elements.iter().collect(),
            _ => return refused("not the kind of value that was expected"),
        };
        let inner = node.span.start + 1..node.span.end - 1;
        let spread = match items.last() {
            Some(last) => self.indent_before(last.start),
            None => self.style.indent.as_ref().map(|unit| self.line_indent(node.span.start) + unit),
        };
        let (at, text) = match (items.last(), &spread) {
            (Some(last), Some(indent)) => {
                let item = self.style.item(key, value, Some(indent));
                (last.value.span.end..last.value.span.end, format!(",{}{indent}{item}", self.style.newline))
            }
            (Some(last), None) => {
                let comma = if self.style.indent.is_some() { ", " } else { "," };
                let item = self.style.item(key, value, None);
                (last.value.span.end..last.value.span.end, format!("{comma}{item}"))
            }
            (None, Some(indent)) => {
                let outer = self.line_indent(node.span.start);
                let newline = self.style.newline;
                let item = self.style.item(key, value, Some(indent));
                (inner, format!("{newline}{indent}{item}{newline}{outer}"))
            }
            (None, None) => (inner, self.style.item(key, value, None)),
        };
        self.splice(at, &text)
    }

    /// Removes a member or element with the comma that belongs to it: the inverse of [`Self::append`].
    ///
    /// # Errors
    /// When there is nothing at that path.
    pub fn remove(&mut self, path: &[Step<'_>]) -> Result<()> {
        let Some((last, parent)) = path.split_last() else { return refused("the document itself stays") };
        let Some(parent) = self.node(parent) else { return refused("nothing at that place") };
        let (items, index): (Vec<&Item>, usize) = match (&parent.kind, last) {
            (Kind::Object(members), Step::Key(key)) => {
                let Some(index) = members.iter().rposition(|(name, _)| name == key) else {
                    return refused("no such member");
                };
                (members.iter().map(|(_, item)| item).collect(), index)
            }
            (Kind::Array(elements), Step::Index(index)) if *index < elements.len() => {
                (elements.iter().collect(), *index)
            }
            _ => return refused("nothing at that place"),
        };
        let range = match (index, items.get(index + 1)) {
            (0, None) => parent.span.start + 1..parent.span.end - 1,
            (0, Some(next)) => items[0].start..next.start,
            (_, _) => items[index - 1].value.span.end..items[index].value.span.end,
        };
        self.splice(range, "")
    }

    fn splice(&mut self, range: Range<usize>, with: &str) -> Result<()> {
        let mut text = self.text.clone();
        text.replace_range(range, with);
        let edited = Self::parse(&text)?;
        // The style is the one that was found first: an edit must not change how the next one writes.
        *self = Self { style: self.style.clone(), ..edited };
        Ok(())
    }

    fn node(&self, path: &[Step<'_>]) -> Option<&Node> {
        let mut node = &self.root;
        for step in path {
            node = match (&node.kind, step) {
                // Of two members with one name the last counts, as for everybody who reads JSON.
                (Kind::Object(members), Step::Key(key)) => {
                    &members.iter().rev().find(|(name, _)| name == key)?.1.value
                }
                (Kind::Array(elements), Step::Index(index)) => &elements.get(*index)?.value,
                _ => return None,
            };
        }
        Some(node)
    }

    /// The white space in front of a position, when nothing else stands on its line.
    fn indent_before(&self, at: usize) -> Option<String> {
        let line = self.text[..at].rfind('\n')? + 1;
        let before = &self.text[line..at];
        before.chars().all(|c| matches!(c, ' ' | '\t')).then(|| before.to_owned())
    }

    /// The white space that the line of a position begins with.
    fn line_indent(&self, at: usize) -> String {
        let line = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        self.text[line..at].chars().take_while(|c| matches!(c, ' ' | '\t')).collect()
    }
}

impl Style {
    fn of(text: &str, root: &Node) -> Self {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let first = match &root.kind {
            Kind::Object(members) => members.first().map(|(_, item)| item.start),
            Kind::Array(elements) => elements.first().map(|item| item.start),
            Kind::Scalar => None,
        };
        let Some(first) = first else { return Self { newline, indent: Some("  ".to_owned()) } };
        let Some(line) = text[..first].rfind('\n') else { return Self { newline, indent: None } };
        let indent = &text[line + 1..first];
        let is_blank = !indent.is_empty() && indent.chars().all(|c| matches!(c, ' ' | '\t'));
        Self { newline, indent: Some(if is_blank { indent.to_owned() } else { "  ".to_owned() }) }
    }

    /// A member or element as text; over several lines when it has an indent of its own.
    fn item(&self, key: Option<&str>, value: &Value, indent: Option<&str>) -> String {
        let mut text = String::new();
        if let Some(key) = key {
            text.push_str(&Value::from(key).to_string());
            text.push_str(if self.indent.is_some() { ": " } else { ":" });
        }
        match (indent, &self.indent) {
            (Some(indent), Some(unit)) => self.spread(value, indent, unit, &mut text),
            _ => text.push_str(&value.to_string()),
        }
        text
    }

    fn spread(&self, value: &Value, indent: &str, unit: &str, text: &mut String) {
        let inner = format!("{indent}{unit}");
        let open = |text: &mut String, first: bool| {
            text.push_str(if first { "" } else { "," });
            text.push_str(self.newline);
            text.push_str(&inner);
        };
        match value {
            Value::Object(members) if !members.is_empty() => {
                text.push('{');
                for (index, (key, member)) in members.iter().enumerate() {
                    open(text, index == 0);
                    text.push_str(&Value::from(key.as_str()).to_string());
                    text.push_str(": ");
                    self.spread(member, &inner, unit, text);
                }
                text.push_str(self.newline);
                text.push_str(indent);
                text.push('}');
            }
            Value::Array(elements) if !elements.is_empty() => {
                text.push('[');
                for (index, element) in elements.iter().enumerate() {
                    open(text, index == 0);
                    self.spread(element, &inner, unit, text);
                }
                text.push_str(self.newline);
                text.push_str(indent);
                text.push(']');
            }
            other => text.push_str(&other.to_string()),
        }
    }
}

/// Finds where values stand in text that is known to be JSON.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node> {
        if depth > DEPTH_LIMIT {
            return refused("nested too deeply");
        }
        let start = self.at;
        let kind = match self.peek() {
            b'{' => Kind::Object(self.members(depth)?),
            b'[' => Kind::Array(self.elements(depth)?),
            b'"' => {
                self.string();
                Kind::Scalar
            }
            _ => {
                while !matches!(self.peek(), b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' | 0) {
                    self.at += 1;
                }
                Kind::Scalar
            }
        };
        Ok(Node { span: start..self.at, kind })
    }

    fn members(&mut self, depth: usize) -> Result<Vec<(String, Item)>> {
        let mut members = Vec::new();
        while self.next_item(b'}') {
            let start = self.at;
            self.string();
            let key = serde_json::from_slice(&self.text[start..self.at])?;
            self.blanks();
            self.at += 1;
            self.blanks();
            members.push((key, Item { start, value: self.value(depth + 1)? }));
        }
        Ok(members)
    }

    fn elements(&mut self, depth: usize) -> Result<Vec<Item>> {
        let mut elements = Vec::new();
        while self.next_item(b']') {
            elements.push(Item { start: self.at, value: self.value(depth + 1)? });
        }
        Ok(elements)
    }

    /// Steps over the opening bracket or a comma to the next item; false at the closing bracket, which it steps over.
    fn next_item(&mut self, closing: u8) -> bool {
        self.blanks();
        if self.peek() != closing {
            self.at += 1;
            self.blanks();
        }
        let more = self.peek() != closing && self.at < self.text.len();
        if !more {
            self.at += 1;
        }
        more
    }

    fn string(&mut self) {
        self.at += 1;
        while !matches!(self.peek(), b'"' | 0) {
            self.at += if self.peek() == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_append(before: &str, path: &[Step<'_>], key: Option<&str>, value: &Value, after: &str) {
        let mut document = Document::parse(before).unwrap();
        document.append(path, key, value).unwrap();
        assert_eq!(document.text(), after);
    }

    #[test]
    fn members_are_added_in_the_style_of_the_document() {
        let value = json!({"a": [1]});
        let key = Some("k");
        check_append(
            "{\n  \"x\": 1\n}\n",
            &[],
            key,
            &value,
            "{\n  \"x\": 1,\n  \"k\": {\n    \"a\": [\n      1\n    ]\n  }\n}\n",
        );
        check_append(
            "{\r\n\t\"x\": 1\r\n}",
            &[],
            key,
            &json!([1]),
            "{\r\n\t\"x\": 1,\r\n\t\"k\": [\r\n\t\t1\r\n\t]\r\n}",
        );
        check_append("{\"x\":1}", &[], key, &value, "{\"x\":1,\"k\":{\"a\":[1]}}");
        check_append("{}", &[], key, &json!(1), "{\n  \"k\": 1\n}");
        check_append(
            "{\n    \"x\": []\n}",
            &[Step::Key("x")],
            None,
            &json!(1),
            "{\n    \"x\": [\n        1\n    ]\n}",
        );
        check_append("{\n  \"x\": [1, 2]\n}", &[Step::Key("x")], None, &json!(3), "{\n  \"x\": [1, 2, 3]\n}");
    }

    #[test]
    fn removing_takes_the_comma_along() {
        let remove = |before: &str, path: &[Step<'_>]| {
            let mut document = Document::parse(before).unwrap();
            document.remove(path).unwrap();
            document.text().to_owned()
        };
        let text = "{ \"a\": 1,\n \"b\": [1, 2, 3],\n \"c\": 3 }";
        assert_eq!(remove(text, &[Step::Key("a")]), "{ \"b\": [1, 2, 3],\n \"c\": 3 }");
        assert_eq!(remove(text, &[Step::Key("b")]), "{ \"a\": 1,\n \"c\": 3 }");
        assert_eq!(remove(text, &[Step::Key("c")]), "{ \"a\": 1,\n \"b\": [1, 2, 3] }");
        assert_eq!(
            remove(text, &[Step::Key("b"), Step::Index(0)]),
            "{ \"a\": 1,\n \"b\": [2, 3],\n \"c\": 3 }"
        );
        assert_eq!(remove("[ 1 ]", &[Step::Index(0)]), "[]");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "{", "{// comment\n}", "{\"a\": 1,}", "{} {}", "{'a': 1}"] {
            assert!(Document::parse(text).is_err(), "{text:?}");
        }
        assert!(Document::parse(&format!("{}{}", "[".repeat(200), "]".repeat(200))).is_err());
    }

    #[test]
    fn escapes_and_marks_do_not_confuse() {
        let text = "\u{feff}{ \"a\\\"}{[\": \"x\\\\\", \"\\u0062\": [ \"]\" , {} ] }";
        let mut document = Document::parse(text).unwrap();
        assert_eq!(document.get(&[Step::Key("b"), Step::Index(0)]), Some(json!("]")));
        document.remove(&[Step::Key("b"), Step::Index(1)]).unwrap();
        assert_eq!(document.text(), "\u{feff}{ \"a\\\"}{[\": \"x\\\\\", \"\\u0062\": [ \"]\" ] }");
    }
}
