//! BEGIN is answered at once and travels with the first statement: a transaction that ends before
//! it needs no server at all. Alone in a Query or as a cycle of the extended protocol, it makes no
//! difference.

use super::survey::{Plan, What};
use super::{LocalTransaction, Mode, Session};
use crate::protocol::frame::{HEADER, Target, bind_parts, cstring, target};
use crate::protocol::message;
use crate::sql::{Decision, Effect};

impl Session {
    /// Takes BEGIN, or what ends a transaction that no server knows of, and gives the tag of its
    /// answer. BEGIN and START TRANSACTION are answered each in its own words.
    pub(super) fn take_transaction_command(
        &mut self,
        effect: &Effect,
        is_begin: bool,
    ) -> Option<&'static str> {
        if self.upstream.is_some() {
            return None;
        }
        let deferred = matches!(self.local, LocalTransaction::Deferred(_));
        let tag = match effect {
            Effect::Begin(begin) if !deferred && self.mode == Mode::Transaction => {
                self.local = LocalTransaction::Deferred(*begin);
                match is_begin {
                    true => "BEGIN",
                    false => "START TRANSACTION",
                }
            }
            Effect::Commit { chain: false } if deferred => {
                self.local = LocalTransaction::None;
                "COMMIT"
            }
            Effect::Rollback { chain: false } if deferred => {
                self.local = LocalTransaction::None;
                "ROLLBACK"
            }
            _ => return None,
        };
        let committed = !matches!(effect, Effect::Rollback { .. });
        self.settings.apply(effect, committed);
        self.wishes.apply(effect, committed);
        Some(tag)
    }

    /// The same as one cycle of the extended protocol.
    pub(super) fn answer_transaction_cycle(&mut self, plan: Plan) -> Option<Plan> {
        let Some((effect, is_begin)) = self.lone_transaction_command(&plan) else {
            return Some(plan);
        };
        let Some(tag) = self.take_transaction_command(&effect, is_begin) else {
            return Some(plan);
        };
        let mut out = Vec::new();
        for step in &plan.steps {
            match step.what {
                What::ParseUnnamed(_) | What::ParseNew(_) => message::put_parse_complete(&mut out),
                What::BindUnnamed(_) | What::BindNamed(_) => message::put_bind_complete(&mut out),
                What::DescribeUnnamed(_) | What::DescribeNamed(_) => {
                    message::put_no_parameters(&mut out);
                    message::put_no_data(&mut out);
                }
                What::DescribePortal => message::put_no_data(&mut out),
                What::Execute => message::put_command_complete(&mut out, tag),
                _ => message::put_ready_for_query(&mut out, self.local_status()),
            }
        }
        self.statements.settle_all();
        self.client.input.consume(plan.size);
        self.client.output.extend(&out);
        None
    }

    /// What a whole cycle runs that binds the unnamed portal without parameters, executes it once and does
    /// nothing else, if that is a command of transactions; and whether it begins with BEGIN. A portal
    /// with a name stays in its transaction, and a server must know of it.
    fn lone_transaction_command(&self, plan: &Plan) -> Option<(Effect, bool)> {
        let [.., last] = plan.steps.as_slice() else {
            return None;
        };
        if !matches!(last.what, What::Sync) || plan.is_behind_read {
            return None;
        }
        let mut found = None;
        let (mut bound, mut executed) = (None, false);
        let mut at = 0;
        for step in &plan.steps {
            let frame = self.client.input.bytes().get(at..at + step.size)?;
            let body = frame.get(HEADER..)?;
            at += step.size;
            let (decision, text) = match &step.what {
                What::ParseUnnamed(unnamed)
                | What::BindUnnamed(unnamed)
                | What::DescribeUnnamed(unnamed) => (&unnamed.classified.decision, unnamed.text()),
                What::ParseNew(statement)
                | What::BindNamed(statement)
                | What::DescribeNamed(statement) => {
                    (&statement.classified.decision, statement.text())
                }
                What::DescribePortal => {
                    let portal = bound.filter(|_| !executed)?;
                    let described = target(body).filter(|it| *it == Target::Portal(portal));
                    described?;
                    continue;
                }
                What::Execute => {
                    let (portal, _) = cstring(body)?;
                    if executed || bound != Some(portal) {
                        return None;
                    }
                    executed = true;
                    continue;
                }
                What::Sync => continue,
                _ => return None,
            };
            let command = (lone_effect(decision)?.clone(), starts_with_begin(text));
            if found.get_or_insert_with(|| command.clone()) != &command {
                return None;
            }
            if matches!(step.what, What::BindUnnamed(_) | What::BindNamed(_)) {
                let (portal, _, rest) = bind_parts(body)?;
                if bound.is_some() || !portal.is_empty() || !has_no_parameters(rest) {
                    return None;
                }
                bound = Some(portal);
            }
        }
        found.filter(|_| executed)
    }
}

/// All that the text does.
fn lone_effect(decision: &Decision) -> Option<&Effect> {
    match &*decision.effects {
        [effect] if decision.statements == 1 => Some(effect),
        _ => None,
    }
}

/// Reads a Bind behind its names: no formats of parameters, and no parameters.
fn has_no_parameters(rest: &[u8]) -> bool {
    rest.starts_with(&[0, 0, 0, 0])
}

/// BEGIN, and not START TRANSACTION; the text is one of them.
pub(super) fn starts_with_begin(text: &[u8]) -> bool {
    !matches!(first_letter(text), Some(b's' | b'S'))
}

/// The first letter of a statement, behind white space and comments, which nest.
fn first_letter(mut text: &[u8]) -> Option<u8> {
    let mut depth = 0;
    loop {
        let skipped = match (text, depth) {
            ([b'/', b'*', ..], _) => {
                depth += 1;
                2
            }
            ([b'*', b'/', ..], 1..) => {
                depth -= 1;
                2
            }
            ([b'-', b'-', ..], 0) => memchr::memchr(b'\n', text)?,
            ([letter, ..], 0) if letter.is_ascii_alphabetic() => return Some(*letter),
            ([], _) => return None,
            _ => 1,
        };
        text = &text[skipped..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_not_words() {
        for (text, letter) in [
            (&b"begin"[..], Some(b'b')),
            (b" ;\n\tSTART", Some(b'S')),
            (b"-- so\n--\nbegin", Some(b'b')),
            (b"/* s /* s */ s */ begin", Some(b'b')),
            (b"/**/start", Some(b's')),
            (b"-- so", None),
            (b"/* so", None),
            (b"", None),
        ] {
            assert_eq!(
                first_letter(text),
                letter,
                "{}",
                String::from_utf8_lossy(text)
            );
        }
    }
}
