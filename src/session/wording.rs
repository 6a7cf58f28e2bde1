//! Errors that name a prepared statement as a server knows it, with the client's own name for it instead.

use memchr::memmem::find;

use super::Session;
use super::dispatch::TAKEN;
use super::upstream::Upstream;
use crate::protocol::error::{SqlState, spliced};
use crate::protocol::frame::HEADER;
use crate::server::STATEMENT_PREFIX;

impl Session {
    /// The ErrorResponse in the client's words, if those are others.
    pub(super) fn in_the_client_s_words(
        &mut self,
        upstream: &Upstream,
        code: SqlState,
        frame: &[u8],
    ) -> Option<Vec<u8>> {
        let body = frame.get(HEADER..)?;
        match code {
            SqlState::DUPLICATE_PREPARED_STATEMENT => {
                let start = find(body, TAKEN.as_bytes())?;
                Some(spliced(
                    body,
                    start..start + TAKEN.len(),
                    upstream.refused_name()?,
                ))
            }
            SqlState::INVALID_SQL_STATEMENT_NAME | SqlState::PROTOCOL_VIOLATION => {
                let start = find(body, STATEMENT_PREFIX.as_bytes())?;
                let number = &body[start + STATEMENT_PREFIX.len()..];
                let digits = number.iter().take_while(|byte| byte.is_ascii_digit());
                let number = &number[..digits.count()];
                let id = std::str::from_utf8(number).ok()?.parse().ok()?;
                let end = start + STATEMENT_PREFIX.len() + number.len();
                Some(spliced(body, start..end, &self.statements.name_of(id)?))
            }
            _ => None,
        }
    }
}

impl Upstream {
    /// The name that the cycle was refused for: whatever is wrong with the first that is taken ends it.
    fn refused_name(&self) -> Option<&[u8]> {
        let (cycle, name) = self.taken.front()?;
        (*cycle == self.receiving).then_some(&**name)
    }
}
