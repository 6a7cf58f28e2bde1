//! What `causeway.explain_routing` adds to the plan that EXPLAIN shows: one more line, which tells
//! the route that the statement took, and why. Plans in a format for programs stay as they are.

use std::collections::VecDeque;

use super::Session;
use super::upstream::Upstream;
use crate::protocol::frame::HEADER;
use crate::protocol::message;
use crate::sql::{Decision, Shown};

/// Whether EXPLAIN tells the route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExplainRouting {
    #[default]
    Off,
    On,
}

/// What the plans of the cycles under way get, by cycle.
#[derive(Default)]
pub struct Explained(VecDeque<(u64, Line)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Text(Box<str>),
    /// One of the cycle's plans takes no further line, and which of them an answer belongs to is not
    /// told.
    None,
}

impl Explained {
    fn note(&mut self, cycle: u64, line: Line) {
        match self.0.back_mut() {
            Some((last, known)) if *last == cycle => {
                if line == Line::None {
                    *known = Line::None;
                }
            }
            _ => self.0.push_back((cycle, line)),
        }
    }

    /// The line for a plan of this cycle. The cycles before it are over.
    fn line(&mut self, cycle: u64) -> Option<&str> {
        while self.0.front().is_some_and(|(past, _)| *past < cycle) {
            self.0.pop_front();
        }
        match self.0.front() {
            Some((noted, Line::Text(line))) if *noted == cycle => Some(line),
            _ => None,
        }
    }
}

impl Session {
    /// A statement is sent in the cycle that is being sent.
    pub(super) fn note_plan(&self, upstream: &mut Upstream, decision: &Decision) {
        if self.preferences.explain_routing == ExplainRouting::Off {
            return;
        }
        let line = match decision.shows {
            Shown::Data => return,
            Shown::PlanText => {
                let (route, reason) = (self.show_last_route(), &decision.reason.0);
                // It must be valid in any encoding that the client may have.
                let line = format!("Causeway: {route} because=\"{reason}\"");
                Line::Text(line.replace(|letter: char| !letter.is_ascii(), "?").into())
            }
            Shown::Plan => Line::None,
        };
        upstream.explained.note(upstream.sending, line);
    }
}

impl Upstream {
    /// The CommandComplete of an EXPLAIN, with one more line of the plan ahead of it.
    pub fn with_route(&mut self, complete: &[u8]) -> Option<Vec<u8>> {
        if complete.get(HEADER..) != Some(b"EXPLAIN\0") {
            return None;
        }
        let line = self.explained.line(self.receiving)?;
        let mut out = Vec::new();
        message::put_text_row(&mut out, line);
        out.extend_from_slice(complete);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_its_cycle_s_alone() {
        let mut explained = Explained::default();
        let text = |line: &str| Line::Text(line.into());
        explained.note(1, text("a"));
        explained.note(1, text("b"));
        explained.note(3, text("c"));
        explained.note(4, text("d"));
        explained.note(4, Line::None);
        assert_eq!(explained.line(0), None);
        assert_eq!(explained.line(1), Some("a"));
        assert_eq!(explained.line(1), Some("a"));
        assert_eq!(explained.line(2), None);
        assert_eq!(explained.line(3), Some("c"));
        assert_eq!(explained.line(4), None);
        assert_eq!(explained.line(5), None);
        assert!(explained.0.is_empty());
    }
}
