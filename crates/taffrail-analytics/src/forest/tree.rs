//! One isolation tree: grown from a sample, laid out as a full binary tree of [`HEIGHT_MAX`] levels.
//!
//! Node 1 is the root, the children of node `i` are `2i` and `2i + 1`, and a walk of [`HEIGHT_MAX`] steps ends at one of
//! [`SAMPLE_ROWS`] slots. A leaf higher up is a node whose threshold is infinite: a walk goes left from there, to one slot.
//! So a walk has no branch, and many rows walk at once.

use super::codec::{CodecError, Reader, Writer};
use super::random::Random;
use super::{FEATURES_MAX, HEIGHT_MAX, SAMPLE_ROWS, average_path};

/// A leaf in the bytes of a tree, where a split has its column.
const LEAF: u8 = u8::MAX;

/// A tree as the paper draws it; the way in for tests and bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A row goes left when its value is less than the threshold.
    #[allow(missing_docs, reason = "the names say it")]
    Split { column: u8, threshold: f32, left: Box<Node>, right: Box<Node> },
    /// So many rows of the sample ended here.
    #[allow(missing_docs, reason = "the names say it")]
    Leaf { rows: u16 },
}

/// See the head of the file. Place 0 of the nodes is free.
#[derive(Clone, PartialEq)]
pub(super) struct Tree {
    column: [u8; SAMPLE_ROWS],
    threshold: [f32; SAMPLE_ROWS],
    /// Rows of the sample in the leaf of a slot.
    rows: [u16; SAMPLE_ROWS],
    /// Path length of a row that ends in the slot.
    path: [f64; SAMPLE_ROWS],
}

/// The rows that a tree is grown from, and what growing needs.
pub(super) struct Sample<'a> {
    /// Row after row, finite.
    pub(super) values: &'a [f32],
    pub(super) columns: usize,
    /// Levels of splits at most.
    pub(super) height: u32,
    pub(super) random: Random,
    /// All columns, in some order.
    pub(super) order: Vec<u8>,
}

impl Tree {
    fn empty() -> Self {
        Self {
            column: [0; SAMPLE_ROWS],
            threshold: [f32::INFINITY; SAMPLE_ROWS],
            rows: [0; SAMPLE_ROWS],
            path: [0.0; SAMPLE_ROWS],
        }
    }

    /// Algorithm 2 of the paper over the rows with these numbers.
    pub(super) fn grow(sample: &mut Sample<'_>, rows: &mut [u32]) -> Self {
        let mut tree = Self::empty();
        tree.grow_node(sample, rows, 1, 0);
        tree
    }

    fn grow_node(&mut self, sample: &mut Sample<'_>, rows: &mut [u32], node: usize, depth: u32) {
        let split = if depth < sample.height && rows.len() > 1 { sample.split(rows) } else { None };
        let Some((column, threshold)) = split else {
            self.set_leaf(node, depth, rows.len() as u16);
            return;
        };
        self.column[node] = column;
        self.threshold[node] = threshold;
        let middle = partition(rows, |row| sample.value(row, column) < threshold);
        let (left, right) = rows.split_at_mut(middle);
        self.grow_node(sample, left, 2 * node, depth + 1);
        self.grow_node(sample, right, 2 * node + 1, depth + 1);
    }

    fn set_leaf(&mut self, node: usize, depth: u32, rows: u16) {
        let slot = (node << (HEIGHT_MAX - depth)) - SAMPLE_ROWS;
        self.rows[slot] = rows;
        self.path[slot] = f64::from(depth) + average_path(usize::from(rows));
    }

    /// The tree that was drawn. Errors where it is higher than [`HEIGHT_MAX`], or a threshold is not finite.
    pub(super) fn of(drawn: &Node) -> Result<Self, CodecError> {
        let mut tree = Self::empty();
        tree.lay(drawn, 1, 0)?;
        Ok(tree)
    }

    fn lay(&mut self, drawn: &Node, node: usize, depth: u32) -> Result<(), CodecError> {
        match drawn {
            Node::Leaf { rows } => self.set_leaf(node, depth, *rows),
            Node::Split { column, threshold, left, right } => {
                if depth >= HEIGHT_MAX {
                    return Err(CodecError::Invalid("a tree is too high"));
                }
                if !threshold.is_finite() {
                    return Err(CodecError::Invalid("a threshold is not finite"));
                }
                if usize::from(*column) >= FEATURES_MAX {
                    return Err(CodecError::Invalid("a tree splits by a column that there is not"));
                }
                self.column[node] = *column;
                self.threshold[node] = *threshold;
                self.lay(left, 2 * node, depth + 1)?;
                self.lay(right, 2 * node + 1, depth + 1)?;
            }
        }
        Ok(())
    }

    /// What [`Tree::of`] takes.
    pub(super) fn drawn(&self) -> Node {
        self.draw(1, 0)
    }

    fn draw(&self, node: usize, depth: u32) -> Node {
        if depth == HEIGHT_MAX || self.threshold[node] == f32::INFINITY {
            return Node::Leaf { rows: self.rows_below(node, depth) as u16 };
        }
        Node::Split {
            column: self.column[node],
            threshold: self.threshold[node],
            left: Box::new(self.draw(2 * node, depth + 1)),
            right: Box::new(self.draw(2 * node + 1, depth + 1)),
        }
    }

    /// The path lengths of a lane of rows; the values of one column lie side by side.
    pub(super) fn paths<const LANES: usize, const COLUMNS: usize>(
        &self,
        values: &[[f32; LANES]; COLUMNS],
        sums: &mut [f64; LANES],
    ) {
        let mut nodes = [1_usize; LANES];
        for _ in 0..HEIGHT_MAX {
            for (lane, node) in nodes.iter_mut().enumerate() {
                let at = *node % SAMPLE_ROWS;
                let value = values[usize::from(self.column[at]) % COLUMNS][lane];
                *node = 2 * at + usize::from(value >= self.threshold[at]);
            }
        }
        for (sum, node) in sums.iter_mut().zip(nodes) {
            *sum += self.path[node % SAMPLE_ROWS];
        }
    }

    /// The splits that a row passes: the column, the sample's rows before the split and after it.
    pub(super) fn walk(&self, row: &[f32]) -> impl Iterator<Item = (usize, usize, usize)> {
        let mut node = 1;
        let mut depth = 0;
        let mut before = self.rows_below(node, depth);
        std::iter::from_fn(move || {
            if depth == HEIGHT_MAX || self.threshold[node] == f32::INFINITY {
                return None;
            }
            let column = usize::from(self.column[node]);
            let value = row.get(column).copied().unwrap_or(0.0);
            node = 2 * node + usize::from(value >= self.threshold[node]);
            depth += 1;
            let after = self.rows_below(node, depth);
            Some((column, std::mem::replace(&mut before, after), after))
        })
    }

    /// Rows of the sample that it was grown from.
    pub(super) fn sample_rows(&self) -> usize {
        self.rows_below(1, 0)
    }

    fn rows_below(&self, node: usize, depth: u32) -> usize {
        let levels = HEIGHT_MAX - depth;
        let first = (node << levels) - SAMPLE_ROWS;
        self.rows[first..first + (1 << levels)].iter().map(|&rows| usize::from(rows)).sum()
    }

    /// Splits and leaves, a parent before its children, the left child first.
    pub(super) fn write(&self, writer: &mut Writer) {
        self.write_node(writer, 1, 0);
    }

    fn write_node(&self, writer: &mut Writer, node: usize, depth: u32) {
        if depth == HEIGHT_MAX || self.threshold[node] == f32::INFINITY {
            writer.u8(LEAF);
            writer.uint(self.rows_below(node, depth) as u64);
            return;
        }
        writer.u8(self.column[node]);
        writer.f32(self.threshold[node]);
        self.write_node(writer, 2 * node, depth + 1);
        self.write_node(writer, 2 * node + 1, depth + 1);
    }

    /// Reads what [`Tree::write`] wrote; a tree that no sample of so many rows can give is an error.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        columns: usize,
        sample_rows: usize,
    ) -> Result<Self, CodecError> {
        let mut tree = Self::empty();
        tree.read_node(reader, columns, 1, 0)?;
        if tree.sample_rows() != sample_rows {
            return Err(CodecError::Invalid("a tree does not have the rows of its sample"));
        }
        Ok(tree)
    }

    fn read_node(
        &mut self,
        reader: &mut Reader<'_>,
        columns: usize,
        node: usize,
        depth: u32,
    ) -> Result<(), CodecError> {
        let column = reader.u8()?;
        if column == LEAF {
            let rows = reader.count(SAMPLE_ROWS)?;
            self.set_leaf(node, depth, rows as u16);
            return Ok(());
        }
        if usize::from(column) >= columns {
            return Err(CodecError::Invalid("a tree splits by a column that there is not"));
        }
        if depth >= HEIGHT_MAX {
            return Err(CodecError::Invalid("a tree is too high"));
        }
        self.column[node] = column;
        self.threshold[node] = reader.f32()?;
        self.read_node(reader, columns, 2 * node, depth + 1)?;
        self.read_node(reader, columns, 2 * node + 1, depth + 1)
    }
}

impl Sample<'_> {
    fn value(&self, row: u32, column: u8) -> f32 {
        self.values[row as usize * self.columns + usize::from(column)]
    }

    /// A column in which the rows differ, each as likely, and a value between its least and its greatest; none where the rows
    /// are all the same.
    fn split(&mut self, rows: &[u32]) -> Option<(u8, f32)> {
        for drawn in 0..self.columns {
            let other = drawn + self.random.below(self.columns - drawn);
            self.order.swap(drawn, other);
            let column = self.order[drawn];
            let (min, max) = rows.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &row| {
                let value = self.value(row, column);
                (min.min(value), max.max(value))
            });
            if min < max {
                return Some((column, between(min, max, self.random.unit())));
            }
        }
        None
    }
}

/// The value at the share `unit` of the way; over `min` and at most `max`, so that both sides get a row.
fn between(min: f32, max: f32, unit: f64) -> f32 {
    let value = (f64::from(min) + unit * (f64::from(max) - f64::from(min))) as f32;
    value.clamp(min.next_up(), max)
}

/// Moves the rows that `is_left` to the front, and says how many.
fn partition(rows: &mut [u32], is_left: impl Fn(u32) -> bool) -> usize {
    let mut middle = 0;
    for place in 0..rows.len() {
        if is_left(rows[place]) {
            rows.swap(middle, place);
            middle += 1;
        }
    }
    middle
}
