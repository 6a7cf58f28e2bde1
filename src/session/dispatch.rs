//! Sending a run of messages to the session's server: what the server lacks goes ahead of it, the
//! capture of its position behind it, all in one write.

use std::sync::Arc;

use super::client_statements::Unnamed;
use super::effects::ends_transaction;
use super::in_sql::ANYTHING;
use super::pins::HOLDINGS;
use super::relay::Inflow;
use super::route::Reason;
use super::statements::Statement;
use super::survey::{Ending, Plan, Step, What};
use super::upstream::{Afterwards, Footprint, Upstream};
use super::{LocalTransaction, Session};
use crate::net::Buffer;
use crate::protocol::frame::{HEADER, bind_parts, cstring, parse_parts};
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::owed::{Fate, Request, StatementId, Synthetic};
use crate::routing::{PrimaryReason, Role};
use crate::server::settings::quoted;
use crate::server::statement_name;
use crate::sql::{Begin, Class, Code, Decision, Effect, Isolation};

impl Session {
    /// Moves the run from the client's input to the server's output.
    pub(super) fn dispatch(&mut self, mut plan: Plan) {
        let Some(mut upstream) = self.upstream.take() else {
            return;
        };
        self.retain(&plan, &upstream);
        self.note_change_of_temporaries(&plan);
        let captures = self.leaves_footprint(&plan, &mut upstream);
        let begins = matches!(self.local, LocalTransaction::Deferred(_));
        let captures_sight = !captures && self.captures_sight(&plan, &upstream, begins);
        let asks_for_sight = self.asks_for_sight(&plan, &upstream, begins);
        let capture = captures.then(|| self.way_to_capture(&plan, &upstream));
        if let Some(way) = capture {
            self.services.metrics.captures(way);
        }
        upstream.is_sighted = false;
        match upstream.server.owed.is_mid_cycle() {
            true => self.send_mentioned(&mut upstream, &plan),
            false => self.prepare_server(&mut upstream, &plan),
        }
        upstream.hide_our_own(&plan);
        if plan.is_behind_read && plan.has_effects {
            // It is too late for an isolation level.
            upstream.run_within_cycle("SELECT");
        }
        self.statements.sent(plan.changes, upstream.sending);
        let input = std::mem::take(&mut self.client.input);
        let mut at = 0;
        for step in &plan.steps {
            let there = input.len().min(at + step.size);
            let frame = &input.bytes()[at..there];
            self.follow_unnamed_portal(&mut upstream, &plan, step, frame);
            match capture {
                Some(capture) => self.send_captured_step(&mut upstream, step, frame, capture),
                None => self.send_step(&mut upstream, step, frame),
            }
            at = there;
        }
        self.client.input = input;
        self.client.input.consume(at);
        if plan.size > at {
            self.inflow = Inflow::Through(plan.size - at);
        }
        if plan.ending == Ending::Cut {
            upstream.send_flush();
        }
        match capture {
            Some(capture) => upstream.send_behind(capture),
            None if captures_sight => upstream.send_sight_capture(),
            None if asks_for_sight => upstream.ask_for_sight(),
            None => {}
        }
        plan.steps.clear();
        self.spare_steps = plan.steps;
        self.upstream = Some(upstream);
        self.emit_synthetics();
    }

    /// Keeps a copy of a run of reads that goes to a replica, so that it can run again elsewhere
    /// as long as nothing of its result has been shown.
    fn retain(&mut self, plan: &Plan, upstream: &Upstream) {
        let repeatable = upstream.role == Role::Replica
            && plan.is_whole_cycle()
            && plan.is_repeatable()
            && plan.class <= Class::Read
            && plan.begins.is_none()
            && self.local == LocalTransaction::None
            && !upstream.is_in_transaction()
            && !upstream.server.owed.is_mid_cycle()
            && !upstream.owes_client();
        self.forget_retained();
        if repeatable && plan.size <= self.client.input.len() {
            self.held_from = Some(self.client.output.len());
            self.retained
                .extend(&self.client.input.bytes()[..plan.size]);
        }
    }

    /// Notes that the run may leave the session with something that a later read must see; true
    /// if the position behind it is to be captured in the same write.
    fn leaves_footprint(&mut self, plan: &Plan, upstream: &mut Upstream) -> bool {
        if upstream.role == Role::Replica {
            return false;
        }
        let was_open = upstream.is_in_transaction() || upstream.sending > upstream.receiving;
        let displaced = matches!(
            self.last_route.map(|route| route.reason),
            Some(Reason::Read(
                PrimaryReason::Lag | PrimaryReason::FloorUnknown
            ))
        );
        let in_transaction = self.local != LocalTransaction::None
            || plan.begins.is_some()
            || upstream.is_in_transaction();
        let leaves_none = plan.asks_nothing() || plan.needs_no_data() && !in_transaction;
        if leaves_none && !upstream.server.owed.is_mid_cycle() {
            return false;
        }
        let deep = plan.class == Class::Write || in_transaction || displaced || self.ties_others();
        upstream.footprint = match (upstream.footprint, deep) {
            (Footprint::Deep | Footprint::Capturing, _) | (_, true) => Footprint::Deep,
            (kept @ (Footprint::Unknown | Footprint::Unasked), false) => kept,
            (Footprint::None | Footprint::Seen, false) => Footprint::Seen,
        };
        let will_be_idle = plan.begins.is_none()
            && match was_open {
                false => self.local == LocalTransaction::None,
                true => upstream.sending == upstream.receiving && plan.ends_transaction,
            };
        let copies = plan.copies_in || upstream.portals.iter().any(|(_, open)| open.copies_in);
        plan.is_whole_cycle() && will_be_idle && !copies && self.captures(upstream)
    }

    /// Sends ahead of a cycle the settings in which the server differs, what SQL names, and a BEGIN that is owed.
    pub(super) fn prepare_server(&mut self, upstream: &mut Upstream, plan: &Plan) {
        let mut sql = self.settings_ahead(upstream, plan);
        if plan.has_effects || !upstream.server.sql_statements.is_empty() {
            upstream.send_ahead(std::mem::take(&mut sql).as_bytes());
            self.send_sql_statements(upstream, plan);
        }
        self.send_with_begin(upstream, sql);
    }

    /// What makes the server's settings the session's.
    ///
    /// The settings go in a transaction of their own: if one of them fails, the server is left in
    /// a failed transaction and refuses the request behind them, instead of running it with wrong
    /// settings.
    pub(super) fn settings_ahead(&mut self, upstream: &mut Upstream, plan: &Plan) -> String {
        let wanted = self.settings.current();
        let mut difference = upstream.applied.current().statements_to(wanted);
        if upstream.server.tampered.is_some_and(|by| by != self.serial) {
            difference = Some(wanted.statements_from_anything());
            upstream.server.is_restored();
        }
        let mut sql = self.claim_sequences(upstream, plan).to_owned();
        if let Some(difference) = difference {
            match upstream.is_in_transaction() {
                true => sql.push_str(&difference),
                false => sql.extend(["BEGIN;", &difference, "COMMIT;"]),
            }
            upstream.applied.replace(wanted);
        }
        sql
    }

    /// Sends this, and a BEGIN that is owed.
    pub(super) fn send_with_begin(&mut self, upstream: &mut Upstream, mut sql: String) {
        if let LocalTransaction::Deferred(begin) = self.local {
            sql.push_str(&begin_statement(begin));
            upstream.applied.apply(&Effect::Begin(begin), true);
            self.local = LocalTransaction::None;
        }
        upstream.send_ahead(sql.as_bytes());
    }

    /// Sends one message, `frame`, as the server must have it.
    pub(super) fn send_step(&mut self, upstream: &mut Upstream, step: &Step, frame: &[u8]) {
        match &step.what {
            What::Query(decision) => self.send_query(upstream, decision, frame),
            What::FunctionCall => {
                upstream.server.tampered = Some(self.serial);
                upstream.send(frame, Request::FunctionCall);
            }
            What::ParseUnnamed(unnamed) => {
                upstream.send(frame, Request::Parse(0));
                upstream.server.owed.push_synthetic(Synthetic::Nothing);
                upstream.server.unnamed = Some(unnamed.tag);
            }
            What::ParseNew(statement) => {
                if upstream.is_in_vain(&statement.classified.decision) {
                    upstream.send_refused_parse(&statement.name, &statement.definition);
                    upstream.server.owed.push_synthetic(Synthetic::Nothing);
                } else if upstream.server.statements.touch(statement.id)
                    && !upstream.may_be_in_vain()
                    && !upstream.may_have_left_portal()
                {
                    upstream
                        .server
                        .owed
                        .push_synthetic(Synthetic::ParseComplete);
                } else {
                    upstream.send_parse_anew(statement, Fate::Forward);
                    if let Some((name, _)) = frame.get(HEADER..).and_then(cstring) {
                        self.statements.is_with_server(name);
                    }
                }
            }
            What::ParseKnown => upstream
                .server
                .owed
                .push_synthetic(Synthetic::ParseComplete),
            What::ParseTaken => {
                if let Some(parts) = frame.get(HEADER..).and_then(parse_parts) {
                    upstream.send_taken(parts.name, parts.definition);
                }
            }
            What::PrepareInSql(name, definition) => upstream.prepare_here(name, definition),
            What::BindUnnamed(unnamed) => {
                self.note_plan(upstream, &unnamed.classified.decision);
                upstream.ensure_unnamed(unnamed);
                upstream.send(frame, Request::Bind);
                self.note_code(upstream, &unnamed.classified.decision);
                upstream.open_portal(portal_of(frame), &unnamed.classified.decision);
            }
            What::BindNamed(statement) => {
                self.note_plan(upstream, &statement.classified.decision);
                upstream.ensure(statement);
                upstream.send_bind(&statement.name, frame, step.size, Fate::Forward);
                self.note_code(upstream, &statement.classified.decision);
                upstream.open_portal(portal_of(frame), &statement.classified.decision);
            }
            What::BindInSql => {
                upstream.server.tampered = Some(self.serial);
                upstream.send(frame, Request::Bind);
            }
            What::BindUnknown => {
                upstream.forget_unnamed();
                upstream.send(frame, Request::Bind);
            }
            What::BindShow(name) => {
                upstream.prepare_show(name, &self.show(name).unwrap_or_default());
                upstream.send_bind(SHOW_STATEMENT, frame, step.size, Fate::Forward);
            }
            What::DescribeShow(name) => {
                upstream.prepare_show(name, &self.show(name).unwrap_or_default());
                upstream.send_describe(SHOW_STATEMENT, 0);
                upstream.describing_unnamed.push_back(None);
            }
            What::DescribeUnnamed(unnamed) => {
                upstream.ensure_unnamed(unnamed);
                upstream.send(frame, Request::DescribeStatement(0));
                upstream
                    .describing_unnamed
                    .push_back(Some(Arc::clone(unnamed)));
            }
            What::DescribeNamed(statement) => {
                upstream.ensure(statement);
                if statement.shape().is_none() {
                    upstream.describing.push_back(Arc::clone(statement));
                }
                upstream.send_describe(&statement.name, statement.id);
            }
            What::DescribeInSql => {
                upstream.send(frame, Request::DescribeStatement(0));
                upstream.describing_unnamed.push_back(None);
            }
            What::DescribeUnknown => {
                upstream.forget_unnamed();
                upstream.send(frame, Request::DescribeStatement(0));
                upstream.describing_unnamed.push_back(None);
            }
            What::DescribePortal => upstream.send(frame, Request::DescribePortal),
            What::Execute => {
                upstream.send(frame, Request::Execute);
                if !frame.ends_with(&[0; 4]) {
                    upstream.limited_in = Some(upstream.sending);
                }
                if !upstream.portals.is_empty()
                    && let Some(decision) = upstream.portal(portal_of(frame)).cloned()
                {
                    upstream.anticipate(&decision);
                    self.vacate(upstream, &decision);
                    self.restore(upstream, &decision);
                }
            }
            What::CloseStatement => upstream.close_statement(frame),
            What::ClosePortal => upstream.send(frame, Request::Close),
            What::Sync => upstream.send(frame, Request::Sync),
            What::Flush => upstream.server.wire.output.extend(frame),
        }
    }

    fn send_query(&mut self, upstream: &mut Upstream, decision: &Arc<Decision>, frame: &[u8]) {
        upstream.anticipate(decision);
        self.vacate(upstream, decision);
        self.note_plan(upstream, decision);
        self.note_code(upstream, decision);
        // Its commit is that of the cycle: should that fail, nothing tells whether this had come before.
        if upstream.server.owed.is_mid_cycle() && decision.effects.iter().any(changes_names) {
            upstream.afterwards = Afterwards::Discard;
        }
        let whole = self.with_startup_values(upstream, decision, frame);
        upstream.send(whole.as_deref().unwrap_or(frame), Request::Query);
        upstream.server.unnamed = None;
    }

    /// PostgreSQL waits some seconds for others to leave a database that it is told to drop. Servers
    /// at rest would never do.
    fn vacate(&self, upstream: &mut Upstream, decision: &Decision) {
        for effect in &decision.effects {
            if let Effect::Vacate(database) = effect {
                upstream.vacating = Some(self.services.pools.vacate(database.clone()));
            }
        }
    }

    /// Code of the session's own may leave settings behind that nobody has seen.
    fn note_code(&self, upstream: &mut Upstream, decision: &Decision) {
        if decision.code > Code::None {
            upstream.server.tampered = Some(self.serial);
        }
    }
}

impl Upstream {
    /// A statement is on its way: what it changes counts when its cycle has ended well.
    pub(super) fn anticipate(&mut self, decision: &Arc<Decision>) {
        let changes_session = !decision.effects.is_empty() || decision.is_ddl;
        self.ends_pins |= changes_session;
        if changes_session || decision.code == Code::Remakes {
            self.effects.push_back((self.sending, Arc::clone(decision)));
        }
    }

    /// Gives the server the client's unnamed statement, unless it has it.
    pub(super) fn ensure_unnamed(&mut self, unnamed: &Unnamed) {
        if self.server.unnamed == Some(unnamed.tag) {
            return;
        }
        let mut out = Vec::new();
        message::put_parse(&mut out, b"", &unnamed.definition);
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Parse(0), Fate::Swallow);
        self.server.unnamed = Some(unnamed.tag);
    }

    /// The transaction has failed, and this does not end it: the server will say so.
    fn is_in_vain(&self, decision: &Decision) -> bool {
        self.is_in_failed_transaction()
            && !self.server.owed.awaits_server()
            && !decision.effects.iter().any(ends_transaction)
    }

    /// A cycle that has not been answered may make, or leave, the transaction failed: then the server
    /// itself must say what becomes of a Parse.
    pub(super) fn may_be_in_vain(&self) -> bool {
        let unanswered = self.sending > self.receiving;
        let may_fail = self.has_begun_transaction() || !self.effects.is_empty();
        unanswered && may_fail || self.server.status == TransactionStatus::Failed
    }

    /// A portal of this cycle may not have given all of its rows. What it has changed so far is to be seen behind
    /// a Parse, which the server must be sent for that.
    fn may_have_left_portal(&self) -> bool {
        self.limited_in == Some(self.sending)
    }

    /// Parses a statement that the server may have already, under the name that has it.
    fn send_parse_anew(&mut self, statement: &Statement, fate: Fate) {
        if self.server.statements.touch(statement.id) {
            let mut out = Vec::new();
            message::put_close_statement(&mut out, &statement.name);
            self.server.wire.output.extend(&out);
            let close = Request::Evict(statement.id);
            self.server.owed.push(close, Fate::Swallow);
        }
        self.send_parse(statement.id, &statement.name, &statement.definition, fate);
    }

    /// The client has no such statement. The server's unnamed one, if it has any, may be another
    /// client's.
    fn forget_unnamed(&mut self) {
        let mut out = Vec::new();
        message::put_close_statement(&mut out, "");
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Close, Fate::Swallow);
        self.server.unnamed = None;
    }

    /// Sends a message as it is; its reply goes to the client.
    pub(super) fn send(&mut self, bytes: &[u8], request: Request) {
        self.server.wire.output.extend(bytes);
        self.server.owed.push(request, Fate::Forward);
        if matches!(
            request,
            Request::Query | Request::Sync | Request::FunctionCall
        ) {
            self.sending += 1;
        }
    }

    /// Sends SQL of our own ahead of a request, which fails if this does.
    pub fn send_ahead(&mut self, sql: &[u8]) {
        if sql.is_empty() {
            return;
        }
        let mut out = Vec::new();
        message::put_query(&mut out, sql);
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Query, Fate::Settings);
        self.server.unnamed = None;
    }

    /// Gives the server a shared statement, and takes the least recently used one from it if there are too many.
    pub(super) fn send_parse(
        &mut self,
        id: StatementId,
        name: &str,
        definition: &[u8],
        fate: Fate,
    ) {
        let mut out = Vec::new();
        message::put_parse(&mut out, name.as_bytes(), definition);
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Parse(id), fate);
        if fate == Fate::Forward {
            self.server.owed.push_synthetic(Synthetic::Nothing);
        }
        if let Some(oldest) = self.server.statements.insert(id) {
            let mut out = Vec::new();
            message::put_close_statement(&mut out, &statement_name(oldest));
            self.server.wire.output.extend(&out);
            self.server.owed.push(Request::Evict(oldest), Fate::Swallow);
        }
    }

    /// Parses under a name that the server has given already, so that it refuses. That takes
    /// nothing away from it. What is wrong with the text itself, it says first.
    fn send_refused_parse(&mut self, name: &str, definition: &[u8]) {
        let mut out = Vec::new();
        message::put_parse(&mut out, name.as_bytes(), definition);
        self.send(&out, Request::ParseInVain);
    }

    /// Has the server refuse a Parse of this name, which a statement of the client's has. The server need not have
    /// that one, which may not even parse any more.
    fn send_taken(&mut self, name: &[u8], definition: &[u8]) {
        let mut out = Vec::new();
        message::put_close_statement(&mut out, TAKEN);
        message::put_parse(&mut out, TAKEN.as_bytes(), &ANYTHING);
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Close, Fate::Swallow);
        self.server.owed.push(Request::Parse(OWN_ID), Fate::Swallow);
        self.taken.push_back((self.sending, name.into()));
        self.send_refused_parse(TAKEN, definition);
    }

    /// Gives the server a statement that the client has prepared, unless it has it.
    pub(super) fn ensure(&mut self, statement: &Statement) {
        if !self.server.statements.touch(statement.id) {
            self.send_parse(
                statement.id,
                &statement.name,
                &statement.definition,
                Fate::Swallow,
            );
        }
    }

    /// Prepares a SELECT that gives `value` as SHOW would.
    fn prepare_show(&mut self, name: &str, value: &str) {
        let column = name.replace('"', "\"\"");
        let sql = format!("SELECT {}::pg_catalog.text AS \"{column}\"", quoted(value));
        let mut out = Vec::new();
        message::put_close_statement(&mut out, SHOW_STATEMENT);
        let definition = [sql.as_bytes(), b"\0\0\0"].concat();
        message::put_parse(&mut out, SHOW_STATEMENT.as_bytes(), &definition);
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Close, Fate::Swallow);
        self.server.owed.push(Request::Parse(OWN_ID), Fate::Swallow);
    }

    fn send_describe(&mut self, name: &str, id: StatementId) {
        let mut out = Vec::new();
        message::put_describe_statement(&mut out, name.as_bytes());
        self.send(&out, Request::DescribeStatement(id));
    }

    /// Sends a Bind under the shared name. `size` is the message's own; `frame` may be only the
    /// beginning of it.
    pub(super) fn send_bind(&mut self, statement: &str, frame: &[u8], size: usize, fate: Fate) {
        let body = frame.get(HEADER..).unwrap_or_default();
        let Some((portal, _, rest)) = bind_parts(body) else {
            return;
        };
        let rest_size = size - HEADER - (body.len() - rest.len());
        let mut head = Vec::with_capacity(64);
        message::put_bind_head(&mut head, portal, statement.as_bytes(), rest_size);
        self.server.wire.output.extend(&head);
        self.server.wire.output.extend(rest);
        self.server.owed.push(Request::Bind, fate);
    }

    fn send_flush(&mut self) {
        let mut out = Vec::new();
        message::put_flush(&mut out);
        self.server.wire.output.extend(&out);
    }
}

impl Upstream {
    /// Asks the server what it holds for the session.
    pub fn send_holdings_question(&mut self) {
        let mut out = Vec::new();
        message::put_query(&mut out, HOLDINGS);
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Query, Fate::Holdings);
        self.server.unnamed = None;
        self.ends_pins = false;
    }
}

/// The statement that answers `SHOW causeway.*`: made anew each time, because the value changes.
const SHOW_STATEMENT: &str = "causeway_show";

/// The statement that has a name in a client's place.
pub(super) const TAKEN: &str = "causeway_taken";

/// That of statements of our own: no shared one has it.
pub(super) const OWN_ID: StatementId = StatementId::MAX;

/// PREPARE, DEALLOCATE, DISCARD ALL: no rollback undoes what they do to the names of statements.
pub(super) fn changes_names(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::DiscardAll | Effect::Deallocate(_) | Effect::Prepare(_)
    )
}

/// The portal that a Bind or an Execute names.
pub(super) fn portal_of(frame: &[u8]) -> &[u8] {
    let body = frame.get(HEADER..).unwrap_or_default();
    cstring(body).map_or(body, |(portal, _)| portal)
}

/// BEGIN in its canonical form.
fn begin_statement(begin: Begin) -> String {
    let mut sql = "BEGIN".to_owned();
    sql.push_str(match begin.isolation {
        None => "",
        Some(Isolation::ReadUncommitted) => " ISOLATION LEVEL READ UNCOMMITTED",
        Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
        Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
        Some(Isolation::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
    });
    sql.push_str(match begin.read_only {
        None => "",
        Some(true) => " READ ONLY",
        Some(false) => " READ WRITE",
    });
    sql.push_str(match begin.deferrable {
        None => "",
        Some(true) => " DEFERRABLE",
        Some(false) => " NOT DEFERRABLE",
    });
    sql
}

impl Session {
    /// Gives the replies of our own whose turn has come.
    pub(super) fn emit_synthetics(&mut self) {
        let Some(upstream) = &mut self.upstream else {
            return;
        };
        let mut out = Vec::new();
        self.statements
            .give_due(&mut upstream.server.owed, &mut out);
        self.client.output.extend(&out);
    }

    pub(super) fn forget_retained(&mut self) {
        self.retained = Buffer::default();
        self.held_from = None;
    }
}

pub(super) fn put_synthetic(out: &mut Vec<u8>, reply: Synthetic) {
    match reply {
        Synthetic::ParseComplete => message::put_parse_complete(out),
        Synthetic::CloseComplete => message::put_close_complete(out),
        Synthetic::Nothing => {}
    }
}
