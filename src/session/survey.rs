//! The survey: what a run of frontend messages, up to the next Query, Sync or Flush, is going to
//! do, before any of it is sent anywhere.

use std::sync::Arc;

use super::Session;
use super::account::too_many_statements;
use super::client_statements::{Registered, Unnamed};
use super::effects::{is_torn, may_leave_other_names};
use super::in_sql::{Mentioned, Wanted};
use super::order::goes_no_further;
use super::portals::leaves_portal;
use super::profiles::Wants;
use super::relay::Inflow;
use super::runs::{RunEnd, run_end, whole_messages};
use super::statements::{Standing, Statement};
use crate::protocol::error::{Fault, SqlState};
use crate::protocol::frame::{Frame, Header, Target, bind_parts, frontend, parse_parts, target};
use crate::routing::{Level, UnixMillis};
use crate::sql::{Begin, Class, Decision, Effect};

/// What a run of messages is going to do.
#[derive(Debug)]
pub struct Plan {
    /// Bytes of the client's input that it covers.
    pub size: usize,
    /// Its messages, in order.
    pub steps: Vec<Step>,
    pub ending: Ending,
    /// The strongest class of all its statements.
    pub class: Class,
    /// The strictest level that any of its statements asks for; none before there is one.
    wants: Option<Wants>,
    pub region: Option<Arc<str>>,
    /// BEGIN is among its statements.
    pub begins: Option<Begin>,
    /// COMMIT, ROLLBACK or PREPARE TRANSACTION is among its statements.
    pub ends_transaction: bool,
    /// Some statement changes more than data, or mentions what SQL has prepared: it is sent when all
    /// before it has been answered.
    pub has_effects: bool,
    /// Code of the session's own runs, which nobody has looked into.
    pub runs_code: bool,
    /// Some statement may be outdated: what it gives now can only be asked of a server at rest.
    pub asks_first: bool,
    /// Some statement changes what outlives its transaction.
    pub(super) changes_session: bool,
    /// What comes behind it in its cycle may use a portal that it opens: what has it must be able to run
    /// all of that.
    pub leaves_portal: bool,
    /// Its cycle has read already, on a replica that it has left.
    pub is_behind_read: bool,
    /// A statement may put the server into COPY IN mode.
    pub copies_in: bool,
    /// The session will hold something that only its server has.
    pub pins: bool,
    /// A statement asks what the session got from a sequence.
    pub asks_sequences: bool,
    /// The run asks for something that makes no sense, and gets this for an answer.
    pub refusal: Option<Box<Fault>>,
    /// What its comments ask for and cannot have.
    pub warnings: Vec<Fault>,
    /// Tokens that it presents.
    pub tokens: Vec<String>,
    /// When something was written that it must see, as the client says.
    pub written_at: Option<UnixMillis>,
    /// So many changes of the client's prepared statements are its own.
    pub changes: usize,
    /// Statements that it refers to by the names that SQL knows, and what they were by then.
    pub mentioned: Option<Box<Mentioned>>,
}

impl Plan {
    /// How fresh the state must be that it sees; none if no statement says anything about it.
    pub fn level(&self) -> Option<Level> {
        self.wants.map(|wants| wants.level)
    }

    /// How it waits for that; none is as always.
    pub fn wants(&self) -> Option<Wants> {
        self.wants
    }

    /// Of several statements the strictest counts.
    pub(super) fn want(&mut self, wants: Wants) {
        self.wants = Some(
            self.wants
                .map_or(wants, |strictest| strictest.stricter(wants)),
        );
    }

    pub(super) fn mention(&mut self, name: &str, wanted: Wanted) {
        let mentioned = self.mentioned.get_or_insert_default();
        mentioned.run.push((name.into(), wanted));
    }

    /// What SQL names comes of a Parse of this run, and is prepared behind that.
    pub(super) fn prepare_here(&mut self, name: &str, definition: Arc<[u8]>) {
        let what = What::PrepareInSql(name.into(), definition);
        self.steps.push(Step { size: 0, what });
    }

    /// What comes later in the cycle, or code that it runs, may name whatever SQL has prepared.
    pub fn may_mention_any(&self) -> bool {
        self.runs_code || !self.is_whole_cycle()
    }

    /// All its statements give the same answer whatever the data, such as SET and SHOW.
    pub fn needs_no_data(&self) -> bool {
        self.class == Class::Anywhere && self.wants.is_some()
    }

    pub(super) fn was_written_at(&mut self, time: Option<UnixMillis>) {
        self.written_at = self.written_at.max(time);
    }

    /// It raises the floor by itself.
    pub fn brings_positions(&self) -> bool {
        !self.tokens.is_empty() || self.written_at.is_some()
    }

    /// It may fail when it has committed a setting: only the server knows then what is set.
    pub fn may_commit_settings_and_fail(&self) -> bool {
        self.changes_session && (self.begins.is_some() || self.ends_transaction)
    }

    /// A whole cycle, from its first message to its Query or Sync.
    pub fn is_whole_cycle(&self) -> bool {
        matches!(self.ending, Ending::Query | Ending::Sync)
    }

    /// Nothing but Sync and Flush: it sees nothing and changes nothing, whatever the node.
    pub fn asks_nothing(&self) -> bool {
        let mut steps = self.steps.iter();
        steps.all(|step| matches!(step.what, What::Sync | What::Flush))
    }

    /// It can be surveyed a second time with the same outcome.
    pub fn is_repeatable(&self) -> bool {
        let mut steps = self.steps.iter().enumerate();
        steps.all(|(place, step)| match step.what {
            What::CloseStatement => false,
            What::ParseUnnamed(_) => place == 0,
            _ => true,
        })
    }

    /// It asks for a `causeway.*` setting: that question is not what `causeway.last_route` is about.
    pub fn shows_ours(&self) -> bool {
        let asks = |step: &Step| matches!(step.what, What::BindShow(_) | What::DescribeShow(_));
        self.steps.iter().any(asks)
    }
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Query or FunctionCall: a whole cycle.
    Query,
    /// The end of an extended cycle.
    Sync,
    /// Replies are wanted, but the cycle goes on.
    Flush,
    /// What the cycle goes on with depends on what this will have done.
    Cut,
    /// The run is too long to be read to its end, or its end is long in coming: what has been read goes
    /// ahead.
    Open,
}

/// One message of a run.
#[derive(Debug)]
pub struct Step {
    /// Header and body, in bytes; more than there is where the message is to be streamed. None where it is ours.
    pub size: usize,
    pub what: What,
}

impl Step {
    /// What the text does that it runs, or binds in order to run it.
    pub(super) fn decision(&self) -> Option<&Arc<Decision>> {
        match &self.what {
            What::Query(decision) => Some(decision),
            What::BindNamed(statement) => Some(&statement.classified.decision),
            What::BindUnnamed(unnamed) => Some(&unnamed.classified.decision),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub enum What {
    Query(Arc<Decision>),
    FunctionCall,
    ParseUnnamed(Arc<Unnamed>),
    ParseNew(Arc<Statement>),
    /// Of `SHOW causeway.*`, which no server has to know.
    ParseKnown,
    /// Something is prepared under the name, by whatever means: a server is made to refuse it.
    ParseTaken,
    /// No message of the client's: what a Parse has made, under the client's own name.
    PrepareInSql(Box<str>, Arc<[u8]>),
    BindUnnamed(Arc<Unnamed>),
    BindNamed(Arc<Statement>),
    /// To what SQL has prepared.
    BindInSql,
    /// To a name that the client has not prepared: for the server to refuse.
    BindUnknown,
    /// To `SHOW causeway.*`, which is answered by a SELECT of the value it has now.
    BindShow(Box<str>),
    DescribeShow(Box<str>),
    DescribeUnnamed(Arc<Unnamed>),
    DescribeNamed(Arc<Statement>),
    DescribeInSql,
    DescribePortal,
    DescribeUnknown,
    Execute,
    CloseStatement,
    ClosePortal,
    Sync,
    Flush,
}

/// What the input begins with.
pub enum Surveyed {
    Plan(Plan),
    /// The run is not whole yet.
    More,
    /// What it mentions depends on how what was sent before it ends.
    Wait,
    /// The client says goodbye.
    Terminate,
    /// A COPY message where no COPY is under way; its whole size.
    StrayCopy(usize),
}

impl Session {
    /// Reads the run at the start of the client's input. What it changes of the client's prepared
    /// statements counts from now on: it is undone if the run is not sent, or fails before.
    pub(super) fn survey(&mut self) -> Result<Surveyed, Fault> {
        let input = std::mem::take(&mut self.client.input);
        let surveyed = self.survey_bytes(input.bytes());
        self.client.input = input;
        surveyed
    }

    /// Nothing is sent of what the client has sent, because more of the run may come.
    pub(super) fn holds_a_run_back(&self) -> bool {
        let bytes = self.client.input.bytes();
        self.inflow == Inflow::Frames
            && self.plan.is_none()
            && whole_messages(bytes) > 0
            && matches!(
                run_end(bytes, self.services.options.max_query_size),
                Ok(None)
            )
    }

    fn survey_bytes(&mut self, bytes: &[u8]) -> Result<Surveyed, Fault> {
        let (size, ending) = match run_end(bytes, self.services.options.max_query_size)? {
            Some(RunEnd::Terminate) => return Ok(Surveyed::Terminate),
            Some(RunEnd::StrayCopy(size)) => return Ok(Surveyed::StrayCopy(size)),
            Some(RunEnd::At(size, ending)) => (size, ending),
            None => match whole_messages(bytes) {
                size @ 1.. if self.is_silent => (size, Ending::Open),
                _ => return Ok(Surveyed::More),
            },
        };
        if self.mentions_what_is_in_doubt(&bytes[..bytes.len().min(size)]) {
            return Ok(Surveyed::Wait);
        }
        let before = self.statements.unsettled();
        let mut plan = Plan {
            size,
            steps: std::mem::take(&mut self.spare_steps),
            ending,
            class: if ending == Ending::Open {
                Class::Write
            } else {
                Class::Anywhere
            },
            wants: None,
            region: self.preferences.region.clone(),
            begins: None,
            ends_transaction: false,
            has_effects: false,
            runs_code: false,
            asks_first: false,
            changes_session: false,
            leaves_portal: false,
            is_behind_read: false,
            copies_in: false,
            pins: false,
            asks_sequences: false,
            refusal: None,
            warnings: Vec::new(),
            tokens: Vec::new(),
            written_at: None,
            changes: 0,
            mentioned: None,
        };
        let mut at = 0;
        while at < plan.size
            && let Ok(Some(header)) = Header::read(&bytes[at..])
        {
            // Only the last message, and only a Bind or a FunctionCall, may be there in part.
            let there = bytes.len().min(at + header.size);
            let frame = Frame {
                tag: header.tag,
                bytes: &bytes[at..there],
            };
            let what = self.survey_frame(frame, &mut plan)?;
            let cuts = plan.has_effects && self.changes_names(&plan, &what, frame, bytes);
            plan.steps.push(Step {
                size: header.size,
                what,
            });
            at += header.size;
            if cuts && !goes_no_further(&bytes[at..]) {
                (plan.size, plan.ending) = (at, Ending::Cut);
            }
        }
        plan.changes = self.statements.unsettled() - before;
        plan.leaves_portal = !plan.is_whole_cycle() && leaves_portal(&bytes[..bytes.len().min(at)]);
        plan.has_effects |= plan.may_mention_any() && self.statements.has_any_in_sql();
        Ok(Surveyed::Plan(plan))
    }

    fn survey_frame(&mut self, frame: Frame<'_>, plan: &mut Plan) -> Result<What, Fault> {
        let body = frame.body();
        match frame.tag {
            frontend::QUERY => {
                let text = body.strip_suffix(b"\0").ok_or_else(|| malformed("Query"))?;
                let classifier = &self.services.classifier;
                let classified = classifier.classify_in(self.names.scope(), text);
                let classified = self.with_executed(&classified).unwrap_or(classified);
                self.account(&classified, classified.decision.class, plan);
                self.statements.drop_unnamed();
                // Should it fail, the session is pinned: that can be done on the primary only. Nor can all of
                // it be run again elsewhere.
                let decision = &classified.decision;
                if is_torn(decision) || may_leave_other_names(decision) {
                    plan.class = plan.class.max(Class::PrimaryRead);
                }
                Ok(What::Query(classified.decision))
            }
            frontend::PARSE => {
                let before = plan.mentioned.as_ref().map_or(0, |it| it.run.len());
                let what = self.survey_parse(body, plan)?;
                if let Some(mentioned) = &mut plan.mentioned {
                    let prepared = mentioned.run.split_off(before);
                    mentioned.prepared.extend(prepared);
                }
                Ok(what)
            }
            frontend::BIND => {
                let (_, name, _) = bind_parts(body).ok_or_else(|| malformed("Bind"))?;
                let uses = Uses {
                    unnamed: What::BindUnnamed,
                    named: What::BindNamed,
                    in_sql: What::BindInSql,
                    show: What::BindShow,
                    unknown: What::BindUnknown,
                };
                let what = self.as_of_now(self.survey_use(name, plan, uses));
                let what = self.bound_with_executed(what, plan);
                Ok(self.with_given(what, body, plan))
            }
            frontend::DESCRIBE => match target(body).ok_or_else(|| malformed("Describe"))? {
                Target::Portal(_) => Ok(What::DescribePortal),
                Target::Statement(name) => {
                    let uses = Uses {
                        unnamed: What::DescribeUnnamed,
                        named: What::DescribeNamed,
                        in_sql: What::DescribeInSql,
                        show: What::DescribeShow,
                        unknown: What::DescribeUnknown,
                    };
                    Ok(self.survey_use(name, plan, uses))
                }
            },
            frontend::CLOSE => match target(body).ok_or_else(|| malformed("Close"))? {
                Target::Portal(_) => Ok(What::ClosePortal),
                Target::Statement(name) => {
                    self.statements.close(name);
                    Ok(What::CloseStatement)
                }
            },
            frontend::EXECUTE => Ok(What::Execute),
            frontend::SYNC => Ok(What::Sync),
            frontend::FLUSH => Ok(What::Flush),
            frontend::FUNCTION_CALL => {
                plan.class = Class::Write;
                Ok(What::FunctionCall)
            }
            other => Err(Fault::fatal(
                SqlState::PROTOCOL_VIOLATION,
                format!("invalid frontend message type {other}"),
            )),
        }
    }

    fn survey_parse(&mut self, body: &[u8], plan: &mut Plan) -> Result<What, Fault> {
        let parts = parse_parts(body).ok_or_else(|| malformed("Parse"))?;
        let classifier = &self.services.classifier;
        if parts.name.is_empty() {
            let classified = classifier.classify_in(self.names.scope(), parts.text);
            self.account(&classified, classified.decision.class, plan);
            let ours = self.shows_ours(&classified.decision).is_some();
            let age = self.services.prepared.age();
            let unnamed =
                self.statements
                    .set_unnamed(self.serial, parts.definition, classified, age);
            return Ok(if ours {
                What::ParseKnown
            } else {
                What::ParseUnnamed(unnamed)
            });
        }
        if !self.statements.has(parts.name) && self.statements.is_full() {
            plan.refusal = Some(Box::new(too_many_statements()));
        }
        let statement = self.services.prepared.intern(
            classifier,
            self.names.scope(),
            parts.text,
            parts.definition,
        );
        self.account_statement(&statement, plan);
        Ok(match self.statements.register(parts.name, statement) {
            Registered::New(statement)
                if self.shows_ours(&statement.classified.decision).is_some() =>
            {
                What::ParseKnown
            }
            Registered::New(statement) => What::ParseNew(statement),
            Registered::Taken => What::ParseTaken,
        })
    }

    /// A Bind or a Describe of the statement called `name`.
    fn survey_use(&self, name: &[u8], plan: &mut Plan, uses: Uses) -> What {
        if name.is_empty() {
            let Some(statement) = self.statements.unnamed() else {
                return uses.unknown;
            };
            let standing = statement.standing(&self.services.classifier, self.names.scope());
            self.account_known(&statement.classified, statement.text(), &standing, plan);
            let prepared = &self.services.prepared;
            plan.asks_first |= statement.shape().is_some() && prepared.is_past(&statement.age);
            let decision = &statement.classified.decision;
            return match self.shows_ours(decision) {
                Some(setting) => (uses.show)(setting.into()),
                None => (uses.unnamed)(Arc::clone(statement)),
            };
        }
        if let Some(statement) = self.statements.get(name) {
            self.account_statement(statement, plan);
            let prepared = &self.services.prepared;
            plan.asks_first |= statement.shape().is_some() && prepared.is_outdated(statement);
            return match self.shows_ours(&statement.classified.decision) {
                Some(setting) => (uses.show)(setting.into()),
                None => (uses.named)(Arc::clone(statement)),
            };
        }
        plan.has_effects = true;
        let name = std::str::from_utf8(name).ok();
        let known = name.and_then(|name| self.prepared_in_sql(name));
        let is_known = known.is_some();
        self.account_prepared(known, None, plan);
        if let Some(name) = name {
            plan.mention(name, self.wanted(name));
        }
        match is_known {
            true => uses.in_sql,
            false => uses.unknown,
        }
    }

    /// A Bind of a statement with what it does now, should it do something else since it was parsed.
    fn as_of_now(&self, what: What) -> What {
        let (classifier, scope) = (&self.services.classifier, self.names.scope());
        match &what {
            What::BindUnnamed(unnamed) => match unnamed.standing(classifier, scope) {
                Standing::Otherwise(now) => What::BindUnnamed(Arc::new(unnamed.bound(*now))),
                Standing::AsParsed(_) => what,
            },
            What::BindNamed(statement) => match statement.standing(classifier, scope) {
                Standing::Otherwise(now) => What::BindNamed(Arc::new(statement.bound(*now))),
                Standing::AsParsed(_) => what,
            },
            _ => what,
        }
    }

    /// The setting of ours that a lone SHOW asks for.
    fn shows_ours<'a>(&self, decision: &'a Decision) -> Option<&'a str> {
        match &*decision.effects {
            [Effect::Show(name)] if self.show(name).is_some() => Some(name),
            _ => None,
        }
    }

    /// A run that will not be sent, or not as it was surveyed.
    pub(super) fn forget_plan(&mut self, mut plan: Plan) {
        self.statements.undo_last(plan.changes);
        plan.steps.clear();
        self.spare_steps = plan.steps;
    }
}

/// What a Bind or a Describe is, by the statement that it uses.
struct Uses {
    unnamed: fn(Arc<Unnamed>) -> What,
    named: fn(Arc<Statement>) -> What,
    in_sql: What,
    show: fn(Box<str>) -> What,
    unknown: What,
}

pub(super) fn malformed(message: &str) -> Fault {
    Fault::fatal(
        SqlState::PROTOCOL_VIOLATION,
        format!("malformed {message} message"),
    )
}
