//! What each text of a run adds to its plan: its class, how fresh the state must be that it reads,
//! what it changes.

use super::Session;
use super::client_statements::MOST_STATEMENTS;
use super::in_sql::Wanted;
use super::preferences::{self, PREFIX};
use super::profiles::Wants;
use super::statements::{Standing, Statement};
use super::survey::Plan;
use super::upstream::changes_session;
use crate::protocol::error::{Fault, Severity, SqlState};
use crate::routing::{Level, UnixMillis};
use crate::sql::{Class, Classified, Code, Decision, Effect, Hints, PinReason, Relation};

impl Session {
    pub(super) fn account_statement(&self, statement: &Statement, plan: &mut Plan) {
        let standing = statement.standing(&self.services.classifier, self.names.scope());
        self.account_known(&statement.classified, statement.text(), &standing, plan);
    }

    /// Adds a statement that was prepared earlier. What it reads may be another thing since, such as a
    /// view of other tables, which matters to profiles.
    pub(super) fn account_known(
        &self,
        classified: &Classified,
        text: &[u8],
        standing: &Standing,
        plan: &mut Plan,
    ) {
        let class = match standing {
            Standing::AsParsed(class) => *class,
            Standing::Otherwise(now) => return self.account(now, now.decision.class, plan),
        };
        let scope = self.names.scope();
        if self.profiles.is_none() || classified.edition == self.services.classifier.edition(scope)
        {
            return self.account(classified, class, plan);
        }
        let now = self.services.classifier.classify_in(scope, text);
        self.account(&now, class, plan);
    }

    /// The level of a statement that reads no table and asks for nothing itself.
    pub(super) fn level(&self) -> Level {
        match &self.profiles {
            Some(profiles) => profiles.wants(&[], &self.preferences.asked(None)).level,
            None => self.preferences.level,
        }
    }

    /// What the reads of one text get.
    fn wants(&self, relations: &[Relation], hints: Option<&Hints>) -> Wants {
        match (&self.profiles, hints) {
            (None, None) => Wants::level(self.preferences.level),
            (None, Some(_)) => Wants::level(self.preferences.asked(hints).default),
            (Some(profiles), _) => profiles.wants(relations, &self.preferences.asked(hints)),
        }
    }

    /// Adds what is executed by its name; in doubt that is a write.
    pub(super) fn account_prepared(
        &self,
        known: Option<(Class, Box<[Relation]>)>,
        hints: Option<&Hints>,
        plan: &mut Plan,
    ) {
        let (class, relations) = known.unwrap_or((Class::Write, Box::default()));
        plan.class = plan.class.max(class);
        plan.want(self.wants(&relations, hints));
    }

    /// Adds what one text does to the plan; its class is known better than it was.
    pub(super) fn account(&self, classified: &Classified, class: Class, plan: &mut Plan) {
        let decision = &classified.decision;
        plan.class = plan.class.max(class);
        plan.copies_in |= decision.copies_in;
        plan.runs_code |= decision.code > Code::None;
        plan.want(self.wants(&decision.relations, classified.hints.as_deref()));
        if let Some(hints) = &classified.hints {
            if let Some(region) = &hints.region {
                plan.region = Some(region.as_ref().into());
            }
            let warning = |text: &String| {
                Fault::new(Severity::Warning, SqlState::INVALID_PARAMETER_VALUE, text)
            };
            plan.warnings.extend(hints.errors.iter().map(warning));
            plan.tokens
                .extend(hints.token.as_deref().map(str::to_owned));
            plan.was_written_at(hints.written_at_ms.map(UnixMillis));
        }
        for effect in &decision.effects {
            plan.has_effects = true;
            plan.changes_session |= changes_session(effect);
            if let Some(name) = mentioned(effect) {
                match (effect, self.wanted(name)) {
                    (Effect::Execute(_), Wanted::Parsed(definition))
                        if self.statements.is_parsed_here(name.as_bytes()) =>
                    {
                        plan.prepare_here(name, definition);
                    }
                    (Effect::Execute(_), wanted) => plan.mention(name, wanted),
                    (_, wanted) => plan.mention(name, wanted.by_name_alone()),
                }
            }
            self.account_effect(effect, plan);
            match effect {
                Effect::Execute(name) => {
                    let known = self.prepared(name, decision);
                    self.account_prepared(known, classified.hints.as_deref(), plan);
                }
                Effect::Prepare(_) if self.statements.is_full() => {
                    plan.refusal = Some(Box::new(too_many_statements()));
                }
                Effect::Begin(begin) => plan.begins = Some(*begin),
                Effect::Commit { chain } | Effect::Rollback { chain } => {
                    plan.ends_transaction = true;
                    if *chain {
                        plan.begins.get_or_insert_default();
                    }
                }
                Effect::PrepareTransaction => plan.ends_transaction = true,
                // What it is cannot be told, so neither can whether it copies.
                Effect::Pin(reason) => {
                    plan.pins = true;
                    plan.asks_sequences |= *reason == PinReason::Sequence;
                    plan.copies_in |= *reason == PinReason::Unknown;
                }
                _ => {}
            }
        }
    }

    /// Adds what a setting of ours asks for.
    pub(super) fn account_effect(&self, effect: &Effect, plan: &mut Plan) {
        let defaults = &self.services.options.preferences;
        if let Some(level) = preferences::level_asked_for(effect, defaults) {
            plan.want(Wants::level(level));
        }
        match effect {
            Effect::Set { name, value } if name.starts_with(PREFIX) => {
                let wrong = preferences::check(name, value.as_deref()).err();
                plan.refusal = plan.refusal.take().or(wrong.map(Box::new));
                plan.tokens
                    .extend(preferences::presented(name, value.as_deref()));
                plan.was_written_at(preferences::presented_time(name, value.as_deref()));
            }
            Effect::SetLocal { name } | Effect::ResetLocal(name) if name.starts_with(PREFIX) => {
                let message = format!("SET LOCAL {name} has no effect: use SET, or a comment");
                let code = SqlState::FEATURE_NOT_SUPPORTED;
                plan.warnings
                    .push(Fault::new(Severity::Warning, code, message));
            }
            _ => {}
        }
    }
}

impl Session {
    /// What EXECUTE of this name does: what was prepared, here or earlier in the same text.
    fn prepared(&self, name: &str, decision: &Decision) -> Option<(Class, Box<[Relation]>)> {
        let earlier = decision.effects.iter().find_map(|effect| match effect {
            Effect::Prepare(prepare) if *prepare.name == *name => {
                Some((prepare.class, prepare.relations.clone()))
            }
            _ => None,
        });
        let by_protocol = || {
            let statement = self.statements.get(name.as_bytes())?;
            let decision = &statement.classified.decision;
            match statement.standing(&self.services.classifier, self.names.scope()) {
                Standing::AsParsed(class) if decision.effects.is_empty() => {
                    Some((class, decision.relations.clone()))
                }
                _ => None,
            }
        };
        let in_sql = || self.prepared_in_sql(name);
        earlier.or_else(in_sql).or_else(by_protocol)
    }

    /// What SQL has prepared under this name, as the database is now.
    pub(super) fn prepared_in_sql(&self, name: &str) -> Option<(Class, Box<[Relation]>)> {
        let text = self.statements.in_sql(name)?;
        let classifier = &self.services.classifier;
        let decision = classifier.classify_in(self.names.scope(), text).decision;
        let prepare = decision.effects.iter().find_map(|effect| match effect {
            Effect::Prepare(prepare) => Some(prepare),
            _ => None,
        })?;
        // That of the PREPARE is a write too where a replica has refused what it prepares.
        let class = match decision.class {
            Class::Write => Class::Write,
            _ => prepare.class,
        };
        Some((class, prepare.relations.clone()))
    }
}

/// The prepared statement that SQL names.
fn mentioned(effect: &Effect) -> Option<&str> {
    match effect {
        Effect::Execute(name) | Effect::Deallocate(Some(name)) => Some(name),
        Effect::Prepare(prepare) => Some(&prepare.name),
        _ => None,
    }
}

pub(super) fn too_many_statements() -> Fault {
    let message = format!("more than {MOST_STATEMENTS} prepared statements in one session");
    Fault::error(SqlState::PROGRAM_LIMIT_EXCEEDED, message)
        .with_hint("Use DEALLOCATE, or the driver's limit for its statement cache.")
}
