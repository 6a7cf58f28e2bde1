//! Where a run of frontend messages ends, and how much of the client's input must be there to tell.

use super::survey::{Ending, malformed};
use crate::protocol::error::{Fault, SqlState};
use crate::protocol::frame::{HEADER, Header, frontend};

/// A run that is longer than this is not read to its end before it is sent: it goes to the
/// primary. In bytes.
pub const LOOKAHEAD: usize = 64 * 1024;

pub(super) enum RunEnd {
    At(usize, Ending),
    Terminate,
    StrayCopy(usize),
}

/// Where the run at the start of `bytes` ends; `None` when more bytes are needed to tell.
pub(super) fn run_end(bytes: &[u8], max_query_size: usize) -> Result<Option<RunEnd>, Fault> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let header = Header::read(rest)
            .map_err(|error| Fault::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string()))?;
        let Some(header) = header else {
            return Ok(None);
        };
        let holds_text = holds_text(header.tag);
        if holds_text && header.size > max_query_size + HEADER {
            let message = format!(
                "a statement of {} bytes is longer than max_query_size, {max_query_size} bytes",
                header.size - HEADER
            );
            return Err(Fault::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, message));
        }
        match header.tag {
            frontend::TERMINATE if at == 0 => return Ok(Some(RunEnd::Terminate)),
            frontend::COPY_DATA | frontend::COPY_DONE | frontend::COPY_FAIL if at == 0 => {
                return Ok(Some(RunEnd::StrayCopy(header.size)));
            }
            // What they are depends on whether a COPY has begun by then.
            frontend::COPY_DATA | frontend::COPY_DONE | frontend::COPY_FAIL => {
                return Ok(Some(RunEnd::At(at, Ending::Cut)));
            }
            frontend::TERMINATE => return Ok(Some(RunEnd::At(at, Ending::Open))),
            frontend::QUERY if at > 0 => return Ok(Some(RunEnd::At(at, Ending::Open))),
            _ => {}
        }
        if rest.len() < header.size {
            if holds_text || at + header.size <= LOOKAHEAD {
                return Ok(None);
            }
            if at > 0 {
                return Ok(Some(RunEnd::At(at, Ending::Open)));
            }
            if !matches!(header.tag, frontend::BIND | frontend::FUNCTION_CALL) {
                return Err(malformed("over-long"));
            }
            let has_names = rest.len() >= HEADER + MAX_NAMES;
            return Ok(has_names.then_some(RunEnd::At(header.size, Ending::Open)));
        }
        at += header.size;
        match header.tag {
            frontend::QUERY | frontend::FUNCTION_CALL => {
                return Ok(Some(RunEnd::At(at, Ending::Query)));
            }
            frontend::SYNC => return Ok(Some(RunEnd::At(at, Ending::Sync))),
            frontend::FLUSH => return Ok(Some(RunEnd::At(at, Ending::Flush))),
            _ if at >= LOOKAHEAD => return Ok(Some(RunEnd::At(at, Ending::Open))),
            _ => {}
        }
    }
}

/// So many bytes at the start of a run that has no end yet could be sent without the rest.
pub(super) fn whole_messages(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Ok(Some(header)) = Header::read(&bytes[at..])
        && header.size <= bytes.len() - at
    {
        at += header.size;
    }
    at
}

/// So many bytes must be there of the run at the start of `bytes` for [`run_end`] to tell where it ends, or
/// [`LOOKAHEAD`] if that is more: only a text is read further, to its end.
pub(super) fn run_needs(bytes: &[u8], max_query_size: usize) -> usize {
    let mut at = 0;
    while at < LOOKAHEAD {
        match Header::read(&bytes[at..]) {
            Ok(None) => return LOOKAHEAD.max(at + HEADER),
            Ok(Some(header)) if bytes.len() - at < header.size => {
                let wanted = holds_text(header.tag) && header.size <= max_query_size + HEADER;
                let wanted = wanted && !(header.tag == frontend::QUERY && at > 0);
                return LOOKAHEAD.max(if wanted { at + header.size } else { 0 });
            }
            Ok(Some(header)) if goes_on(header.tag) => at += header.size,
            Ok(Some(_)) | Err(_) => break,
        }
    }
    LOOKAHEAD
}

fn holds_text(tag: u8) -> bool {
    matches!(tag, frontend::QUERY | frontend::PARSE)
}

/// A message that does not end its run.
fn goes_on(tag: u8) -> bool {
    matches!(
        tag,
        frontend::PARSE | frontend::BIND | frontend::DESCRIBE | frontend::EXECUTE | frontend::CLOSE
    )
}

/// The names at the head of a Bind that is streamed must lie within so many bytes.
const MAX_NAMES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{put_describe_statement, put_parse, put_query, put_sync};

    const MAX_QUERY_SIZE: usize = 1024 * 1024;

    /// Wherever a read has ended: more is read if, and beyond the lookahead only if, that tells more.
    #[test]
    fn a_run_needs_more_than_is_there_if_its_end_is_not_known() {
        let long = |size: usize| [b'x'; 2 * LOOKAHEAD][..size].to_vec();
        for size in LOOKAHEAD - 40..LOOKAHEAD + 10 {
            let mut run = Vec::new();
            put_parse(&mut run, b"", &long(size));
            put_parse(&mut run, b"", &long(30));
            put_describe_statement(&mut run, b"");
            let mut query = run.clone();
            put_sync(&mut run);
            put_query(&mut query, "SELECT 1");
            for bytes in [run, query] {
                for there in LOOKAHEAD - 60..bytes.len() {
                    let bytes = &bytes[..there];
                    let end = run_end(bytes, MAX_QUERY_SIZE).expect("no fault");
                    let is_read_on = run_needs(bytes, MAX_QUERY_SIZE) > there;
                    assert!(
                        is_read_on == end.is_none() || there < LOOKAHEAD && is_read_on,
                        "{there} bytes, of which a text of {size}: read on is {is_read_on}"
                    );
                }
            }
        }
    }
}
