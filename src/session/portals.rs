//! Which portals a run leaves open behind a Flush: they live on the server that has them, and nobody
//! knows yet what the rest of their cycle needs of it.

use crate::protocol::frame::{Target, bind_parts, execute_parts, frames, frontend, target};

/// Whether a portal that the run opens may be used behind it. The unnamed one is not when it has given all
/// its rows: drivers open it anew for what they do next.
pub(super) fn leaves_portal(run: &[u8]) -> bool {
    let mut open: Vec<&[u8]> = Vec::new();
    for frame in frames(run) {
        let body = frame.body();
        match frame.tag {
            frontend::BIND => open.extend(bind_parts(body).map(|(portal, ..)| portal)),
            frontend::EXECUTE => {
                if let Some((b"", 0)) = execute_parts(body) {
                    open.retain(|portal| !portal.is_empty());
                }
            }
            frontend::CLOSE => {
                if let Some(Target::Portal(closed)) = target(body) {
                    open.retain(|portal| *portal != closed);
                }
            }
            _ => {}
        }
    }
    !open.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[tag][..], &length, &body].concat()
    }

    fn bind(portal: &str) -> Vec<u8> {
        let names = [portal.as_bytes(), b"\0s\0\0\0\0\0\0\0"];
        message(frontend::BIND, &names)
    }

    fn execute(portal: &str, rows: u32) -> Vec<u8> {
        let rows = rows.to_be_bytes();
        message(frontend::EXECUTE, &[portal.as_bytes(), b"\0", &rows])
    }

    fn close_portal(portal: &str) -> Vec<u8> {
        message(frontend::CLOSE, &[b"P", portal.as_bytes(), b"\0"])
    }

    #[test]
    fn a_portal_is_left_open_until_it_is_closed_or_the_unnamed_one_has_run() {
        let table: [(&[Vec<u8>], bool); 13] = [
            (&[], false),
            (&[bind("")], true),
            (&[bind("p")], true),
            (&[bind(""), execute("", 0)], false),
            (&[bind(""), execute("", 1)], true),
            (&[bind(""), execute("", 1), execute("", 0)], false),
            (&[bind(""), execute("", 0), bind("")], true),
            (&[bind("p"), execute("p", 0)], true),
            (&[bind("p"), execute("", 0)], true),
            (&[bind("p"), execute("p", 1), close_portal("p")], false),
            (&[bind("p"), bind("q"), close_portal("p")], true),
            (&[bind(""), close_portal("")], false),
            // Of an earlier run: what has it has been chosen.
            (&[execute("p", 1), execute("", 1)], false),
        ];
        for (number, (run, expected)) in table.iter().enumerate() {
            assert_eq!(leaves_portal(&run.concat()), *expected, "row {number}");
        }
    }
}
