//! The survey: what a run of frontend messages, up to the next Query, Sync or Flush, is going to
//! do, before any of it is sent anywhere.

use std::sync::Arc;

use super::Session;
use super::preferences::{self, PREFIX, stricter};
use super::statements::{MOST_STATEMENTS, Registered, Statement, Unnamed};
use super::upstream::changes_session;
use crate::protocol::error::{Fault, Severity, SqlState};
use crate::protocol::frame::{
    Frame, HEADER, Header, Target, bind_parts, cstring, frontend, parse_parts, target,
};
use crate::routing::Level;
use crate::sql::{Begin, Class, Classified, Decision, Effect, PinReason};

/// A run that is longer than this is not read to its end before it is sent: it goes to the
/// primary. In bytes.
pub const LOOKAHEAD: usize = 64 * 1024;

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
    level: Option<Level>,
    pub region: Option<Arc<str>>,
    /// BEGIN is among its statements.
    pub begins: Option<Begin>,
    /// COMMIT, ROLLBACK or PREPARE TRANSACTION is among its statements.
    pub ends_transaction: bool,
    /// Some statement changes more than data, or mentions what SQL has prepared: it is sent when all
    /// before it has been answered.
    pub has_effects: bool,
    /// Some statement changes what outlives its transaction.
    changes_session: bool,
    /// A statement may put the server into COPY IN mode.
    pub copies_in: bool,
    /// The session will hold something that only its server has.
    pub pins: bool,
    /// The run asks for something that makes no sense, and gets this for an answer.
    pub refusal: Option<Fault>,
    /// What its comments ask for and cannot have.
    pub warnings: Vec<Fault>,
}

impl Plan {
    /// How fresh the state must be that it sees; none if no statement says anything about it.
    pub fn level(&self) -> Option<Level> {
        self.level
    }

    /// All its statements give the same answer whatever the data, such as SET and SHOW.
    pub fn needs_no_data(&self) -> bool {
        self.class == Class::Anywhere && self.level.is_some()
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
    /// The run is too long to be read to its end; what has been read goes ahead.
    Open,
}

/// One message of a run.
#[derive(Debug)]
pub struct Step {
    /// Header and body, in bytes; more than there is where the message is to be streamed.
    pub size: usize,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    Query(Arc<Decision>),
    FunctionCall,
    ParseUnnamed(Arc<Unnamed>),
    ParseNew(Arc<Statement>),
    /// The name has this very statement already.
    ParseKnown,
    /// The name has another statement: the server that has that one refuses.
    ParseTaken(Arc<Statement>),
    /// SQL has prepared another statement of the name: the server that has that one refuses.
    ParseTakenInSql,
    BindUnnamed(Arc<Unnamed>),
    BindNamed(Arc<Statement>),
    /// To a name that the client has not prepared: for the server to refuse.
    BindUnknown,
    /// To `SHOW causeway.*`, which is answered by a SELECT of the value it has now.
    BindShow(Box<str>),
    DescribeShow(Box<str>),
    DescribeUnnamed(Arc<Unnamed>),
    DescribeNamed(Arc<Statement>),
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
    /// The client says goodbye.
    Terminate,
    /// A COPY message where no COPY is under way; its whole size.
    StrayCopy(usize),
}

impl Session {
    /// Reads the run at the start of the client's input. Prepared statements are registered while
    /// it is read, so a run is surveyed once and then sent.
    pub(super) fn survey(&mut self) -> Result<Surveyed, Fault> {
        let input = std::mem::take(&mut self.client.input);
        let surveyed = self.survey_bytes(input.bytes());
        self.client.input = input;
        surveyed
    }

    fn survey_bytes(&mut self, bytes: &[u8]) -> Result<Surveyed, Fault> {
        let Some(end) = run_end(bytes, self.services.options.max_query_size)? else {
            return Ok(Surveyed::More);
        };
        let (size, ending) = match end {
            RunEnd::Terminate => return Ok(Surveyed::Terminate),
            RunEnd::StrayCopy(size) => return Ok(Surveyed::StrayCopy(size)),
            RunEnd::At(size, ending) => (size, ending),
        };
        let mut plan = Plan {
            size,
            steps: std::mem::take(&mut self.spare_steps),
            ending,
            class: if ending == Ending::Open {
                Class::Write
            } else {
                Class::Anywhere
            },
            level: None,
            region: self.preferences.region.clone(),
            begins: None,
            ends_transaction: false,
            has_effects: false,
            changes_session: false,
            copies_in: false,
            pins: false,
            refusal: None,
            warnings: Vec::new(),
        };
        let mut at = 0;
        while at < size
            && let Ok(Some(header)) = Header::read(&bytes[at..])
        {
            // Only the last message, and only a Bind or a FunctionCall, may be there in part.
            let there = bytes.len().min(at + header.size);
            let frame = Frame {
                tag: header.tag,
                bytes: &bytes[at..there],
            };
            let what = self.survey_frame(frame, &mut plan)?;
            plan.steps.push(Step {
                size: header.size,
                what,
            });
            at += header.size;
        }
        // What comes later in the cycle may mention what SQL has prepared.
        plan.has_effects |= !plan.is_whole_cycle() && self.statements.has_any_in_sql();
        Ok(Surveyed::Plan(plan))
    }

    fn survey_frame(&mut self, frame: Frame<'_>, plan: &mut Plan) -> Result<What, Fault> {
        let body = frame.body();
        match frame.tag {
            frontend::QUERY => {
                let text = body.strip_suffix(b"\0").ok_or_else(|| malformed("Query"))?;
                let classified = self.services.classifier.classify(text);
                self.account(&classified, plan);
                Ok(What::Query(classified.decision))
            }
            frontend::PARSE => self.survey_parse(body, plan),
            frontend::BIND => {
                let (_, name, _) = bind_parts(body).ok_or_else(|| malformed("Bind"))?;
                let show = What::BindShow;
                Ok(self.survey_use(
                    name,
                    plan,
                    What::BindUnnamed,
                    What::BindNamed,
                    show,
                    What::BindUnknown,
                ))
            }
            frontend::DESCRIBE => match target(body).ok_or_else(|| malformed("Describe"))? {
                Target::Portal(_) => Ok(What::DescribePortal),
                Target::Statement(name) => Ok(self.survey_use(
                    name,
                    plan,
                    What::DescribeUnnamed,
                    What::DescribeNamed,
                    What::DescribeShow,
                    What::DescribeUnknown,
                )),
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
            let classified = classifier.classify(parts.text);
            self.account(&classified, plan);
            let ours = self.shows_ours(&classified.decision).is_some();
            let unnamed = self
                .statements
                .set_unnamed(self.serial, parts.definition, classified);
            return Ok(if ours {
                What::ParseKnown
            } else {
                What::ParseUnnamed(unnamed)
            });
        }
        if !self.statements.has(parts.name) && self.statements.is_full() {
            plan.refusal = Some(too_many_statements());
        }
        if self.statements.has_in_sql(parts.name) {
            plan.has_effects = true;
            return Ok(What::ParseTakenInSql);
        }
        let statement = self
            .services
            .prepared
            .intern(classifier, parts.text, parts.definition);
        self.account_statement(&statement, plan);
        Ok(match self.statements.register(parts.name, statement) {
            Registered::New(statement)
                if self.shows_ours(&statement.classified.decision).is_some() =>
            {
                What::ParseKnown
            }
            Registered::New(statement) => What::ParseNew(statement),
            Registered::Same => What::ParseKnown,
            Registered::Taken(known) => What::ParseTaken(known),
        })
    }

    /// A Bind or a Describe of the statement called `name`.
    fn survey_use(
        &self,
        name: &[u8],
        plan: &mut Plan,
        unnamed: impl FnOnce(Arc<Unnamed>) -> What,
        named: impl FnOnce(Arc<Statement>) -> What,
        show: impl FnOnce(Box<str>) -> What,
        unknown: What,
    ) -> What {
        if name.is_empty() {
            let Some(statement) = self.statements.unnamed() else {
                return unknown;
            };
            self.account(&statement.classified, plan);
            let decision = &statement.classified.decision;
            return match self.shows_ours(decision) {
                Some(setting) => show(setting.into()),
                None => unnamed(Arc::clone(statement)),
            };
        }
        match self.statements.get(name) {
            Some(statement) => {
                self.account_statement(statement, plan);
                match self.shows_ours(&statement.classified.decision) {
                    Some(setting) => show(setting.into()),
                    None => named(Arc::clone(statement)),
                }
            }
            None => {
                let in_sql = std::str::from_utf8(name).ok();
                let in_sql = in_sql.and_then(|name| self.statements.in_sql(name));
                let class = in_sql.map_or(Class::Write, |statement| statement.class);
                plan.has_effects = true;
                plan.class = plan.class.max(class);
                plan.level.get_or_insert(self.preferences.level);
                unknown
            }
        }
    }

    /// The setting of ours that a lone SHOW asks for.
    fn shows_ours<'a>(&self, decision: &'a Decision) -> Option<&'a str> {
        match &*decision.effects {
            [Effect::Show(name)] if self.show(name).is_some() => Some(name),
            _ => None,
        }
    }

    /// The Parses of a run that will not be sent: their names are free again.
    pub(super) fn forget_parses(&mut self, plan: &Plan) {
        let mut at = 0;
        for step in &plan.steps {
            let frame = self.client.input.bytes().get(at..).unwrap_or_default();
            if let What::ParseNew(_) = step.what
                && let Some((name, _)) = frame.get(HEADER..).and_then(cstring)
            {
                self.statements.close(name);
            }
            at += step.size;
        }
    }

    fn account_statement(&self, statement: &Statement, plan: &mut Plan) {
        self.account(&statement.classified, plan);
        if statement.is_learned_write() {
            plan.class = Class::Write;
        }
    }

    /// Adds what one text does to the plan.
    fn account(&self, classified: &Classified, plan: &mut Plan) {
        let decision = &classified.decision;
        plan.class = plan.class.max(decision.class);
        plan.copies_in |= decision.copies_in;
        let level = match &classified.hints {
            Some(hints) => {
                if let Some(region) = &hints.region {
                    plan.region = Some(region.as_ref().into());
                }
                let warning = |text: &String| {
                    Fault::new(Severity::Warning, SqlState::INVALID_PARAMETER_VALUE, text)
                };
                plan.warnings.extend(hints.errors.iter().map(warning));
                self.preferences.hinted(hints)
            }
            None => self.preferences.level,
        };
        plan.level = Some(
            plan.level
                .map_or(level, |strictest| stricter(strictest, level)),
        );
        for effect in &decision.effects {
            plan.has_effects = true;
            plan.changes_session |= changes_session(effect);
            let defaults = &self.services.options.preferences;
            if let Some(level) = preferences::level_asked_for(effect, defaults) {
                plan.level = plan.level.map(|strictest| stricter(strictest, level));
            }
            match effect {
                Effect::Execute(name) => {
                    plan.class = plan.class.max(self.class_of_prepared(name, decision));
                }
                Effect::Prepare(_) if self.statements.is_full() => {
                    plan.refusal = Some(too_many_statements());
                }
                Effect::Begin(begin) => plan.begins = Some(*begin),
                Effect::Commit { chain } | Effect::Rollback { chain } => {
                    plan.ends_transaction = true;
                    if *chain {
                        plan.begins.get_or_insert_default();
                    }
                }
                Effect::PrepareTransaction => plan.ends_transaction = true,
                Effect::Set { name, value } if name.starts_with(PREFIX) => {
                    plan.refusal = preferences::check(name, value.as_deref()).err();
                }
                Effect::SetLocal { name } if name.starts_with(PREFIX) => {
                    let message = format!("SET LOCAL {name} has no effect: use SET, or a comment");
                    let code = SqlState::FEATURE_NOT_SUPPORTED;
                    plan.warnings
                        .push(Fault::new(Severity::Warning, code, message));
                }
                // What it is cannot be told, so neither can whether it copies.
                Effect::Pin(reason) => {
                    plan.pins = true;
                    plan.copies_in |= *reason == PinReason::Unknown;
                }
                _ => {}
            }
        }
    }
}

impl Session {
    /// Where EXECUTE of this name may run: as what was prepared, here or earlier in the same text.
    fn class_of_prepared(&self, name: &str, decision: &Decision) -> Class {
        let earlier = decision.effects.iter().find_map(|effect| match effect {
            Effect::Prepare(prepare) if *prepare.name == *name => Some(prepare.class),
            _ => None,
        });
        let in_sql = || {
            self.statements
                .in_sql(name)
                .map(|statement| statement.class)
        };
        let by_protocol = || {
            let statement = self.statements.get(name.as_bytes())?;
            let decision = &statement.classified.decision;
            let plain = decision.effects.is_empty() && !statement.is_learned_write();
            plain.then_some(decision.class)
        };
        let class = earlier.or_else(in_sql).or_else(by_protocol);
        class.unwrap_or(Class::Write)
    }
}

fn too_many_statements() -> Fault {
    let message = format!("more than {MOST_STATEMENTS} prepared statements in one session");
    Fault::error(SqlState::PROGRAM_LIMIT_EXCEEDED, message)
        .with_hint("Use DEALLOCATE, or the driver's limit for its statement cache.")
}

enum RunEnd {
    At(usize, Ending),
    Terminate,
    StrayCopy(usize),
}

/// Where the run at the start of `bytes` ends; `None` when more bytes are needed to tell.
fn run_end(bytes: &[u8], max_query_size: usize) -> Result<Option<RunEnd>, Fault> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let header = Header::read(rest)
            .map_err(|error| Fault::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string()))?;
        let Some(header) = header else {
            return Ok(None);
        };
        let holds_text = matches!(header.tag, frontend::QUERY | frontend::PARSE);
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
            frontend::COPY_DATA
            | frontend::COPY_DONE
            | frontend::COPY_FAIL
            | frontend::TERMINATE => return Ok(Some(RunEnd::At(at, Ending::Open))),
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

/// The names at the head of a Bind that is streamed must lie within so many bytes.
const MAX_NAMES: usize = 1024;

fn malformed(message: &str) -> Fault {
    Fault::fatal(
        SqlState::PROTOCOL_VIOLATION,
        format!("malformed {message} message"),
    )
}
