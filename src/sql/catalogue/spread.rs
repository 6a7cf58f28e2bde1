//! From what objects are by themselves to what using them does: verdicts spread from an object to
//! all that uses it, the strongest first.

use super::proof::Proof;
use super::users::{Texts, Users};
use super::words::words;
use super::{Body, Finding, Kind, Language, Nature, Object, Rows, Use};
use crate::sql::functions::{self, Verdict};
use crate::sql::lexer::{self, Lexer, Notation, Token};
use crate::sql::lists::Lists;
use crate::sql::reader::Reader;

/// What a body that runs what it is given is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunsWhatItIsGiven {
    Reads,
    Writes,
}

/// All that findings are made of but the proofs of bodies, which may have to be looked at more than once.
pub(super) struct Spread<'a> {
    objects: &'a [Object],
    trusted: Vec<bool>,
    /// What each object is by itself, if its body holds.
    own: Vec<Finding>,
    users: Users,
}

impl<'a> Spread<'a> {
    pub fn new(rows: &'a Rows, lists: &Lists, how: Use) -> Spread<'a> {
        let objects = &rows.objects;
        let does_nothing = |object: &Object| {
            is_trusted(object, lists) || how == Use::OnlyPlanned && is_not_planned(object, lists)
        };
        let trusted: Vec<bool> = objects.iter().map(does_nothing).collect();
        let own = objects.iter().zip(&trusted);
        Spread {
            objects,
            own: own
                .map(|(object, trusted)| match trusted {
                    true => Finding::Reads,
                    false => by_itself(object, lists),
                })
                .collect(),
            users: Users::new(rows, &trusted, Texts::OfReads),
            trusted,
        }
    }

    /// One finding for each object, in the order of the objects, as the proofs are.
    pub fn findings(&self, proofs: &[Proof], runs_given: RunsWhatItIsGiven) -> Vec<Finding> {
        let own = self.own.iter().zip(proofs).zip(&self.trusted);
        let own = own
            .zip(self.objects)
            .map(|(((own, proof), trusted), object)| match (proof, own) {
                (Proof::Fails(reason), Finding::Reads | Finding::Primary(_)) if !trusted => {
                    Finding::Writes(format!("{}, {VOLATILE}: {reason}", title(object)).into())
                }
                (Proof::RunsWhatItIsGiven(_), Finding::Reads | Finding::Primary(_))
                    if !trusted && runs_given == RunsWhatItIsGiven::Writes =>
                {
                    let reason = "it runs SQL that it is given";
                    Finding::Writes(format!("{}, {VOLATILE}: {reason}", title(object)).into())
                }
                _ => own.clone(),
            });
        spread(self.objects, &self.users, own.collect())
    }

    /// The same where statements are only planned. `run` are those of running them: what is called for its
    /// value is run.
    pub fn findings_of_plans(&self, run: &[Finding]) -> Vec<Finding> {
        let own = self.own.iter().zip(&self.trusted);
        let own = own
            .zip(self.objects.iter().zip(run))
            .map(|((own, trusted), (object, run))| match object.id.kind {
                Kind::Function if !trusted => run.clone(),
                _ => own.clone(),
            });
        spread(self.objects, &self.users, own.collect())
    }
}

fn spread(objects: &[Object], users: &Users, mut findings: Vec<Finding>) -> Vec<Finding> {
    // Names do by themselves nothing.
    findings.resize(users.len(), Finding::Reads);
    for strength in [writes, primary] {
        let mut queue: Vec<usize> = (0..findings.len())
            .filter(|node| findings.get(*node).is_some_and(|it| strength(it).is_some()))
            .collect();
        while let Some(used) = queue.pop() {
            let Some(found) = findings.get(used).cloned() else {
                continue;
            };
            for &user in users.of(used) {
                let Some(known) = findings.get_mut(user) else {
                    continue;
                };
                if *known >= weakest_like(&found) {
                    continue;
                }
                *known = match objects.get(user) {
                    Some(object) => inherited(object, &found),
                    None => found.clone(),
                };
                queue.push(user);
            }
        }
    }
    findings.truncate(objects.len());
    findings
}

fn writes(finding: &Finding) -> Option<&str> {
    match finding {
        Finding::Writes(reason) => Some(reason),
        _ => None,
    }
}

fn primary(finding: &Finding) -> Option<&str> {
    match finding {
        Finding::Primary(reason) => Some(reason),
        _ => None,
    }
}

/// The weakest finding of the same strength: reasons do not count.
fn weakest_like(finding: &Finding) -> Finding {
    match finding {
        Finding::Reads => Finding::Reads,
        Finding::Primary(_) => Finding::Primary("".into()),
        Finding::Writes(_) => Finding::Writes("".into()),
    }
}

/// The reason names who was asked and what is at the bottom of it, and nothing between.
fn inherited(object: &Object, found: &Finding) -> Finding {
    let reason = |root: &str| {
        let root = root.rsplit_once(RESTS_ON).map_or(root, |(_, root)| root);
        match object.id.kind {
            Kind::Everything => format!("an implicit cast between built-in types{RESTS_ON}{root}"),
            _ => format!("{}{RESTS_ON}{root}", title(object)),
        }
    };
    match found {
        Finding::Reads => Finding::Reads,
        Finding::Primary(root) => Finding::Primary(reason(root).into()),
        Finding::Writes(root) => Finding::Writes(reason(root).into()),
    }
}

const RESTS_ON: &str = " rests on ";
const VOLATILE: &str = "which is volatile";

fn title(object: &Object) -> String {
    let Object { schema, name, .. } = object;
    match object.id.kind {
        Kind::Function => format!("function {schema}.{name}()"),
        Kind::Builtin => format!("function {name}()"),
        Kind::Operator => format!("operator {schema}.{name}"),
        Kind::TypeInUse | Kind::TypeByName => format!("type {schema}.{name}"),
        Kind::Relation => format!("relation {schema}.{name}"),
        Kind::Everything => "an expression".to_owned(),
    }
}

/// Listed by the operator as harmless: nothing spreads into it.
pub(super) fn is_trusted(object: &Object, lists: &Lists) -> bool {
    let (schema, name) = (Some(&*object.schema), &*object.name);
    match object.id.kind {
        Kind::Function => {
            lists.read_only_functions.has(schema, name) && !lists.write_functions.has(schema, name)
        }
        Kind::Operator => lists.read_only_functions.has_sign(name),
        Kind::Relation => {
            lists.replica_tables.has(schema, name) && !lists.primary_tables.has(schema, name)
        }
        Kind::Builtin | Kind::TypeInUse | Kind::TypeByName | Kind::Everything => false,
    }
}

/// Planning calls no function that is volatile. But what is in SQL and begins with a query may become part of the
/// plan, and the values of arguments that are left out do.
fn is_not_planned(object: &Object, lists: &Lists) -> bool {
    let (schema, name) = (Some(&*object.schema), &*object.name);
    let is_closed = |body: &Body| {
        let may_be_inlined = body.language == Language::Sql && !begins_with_write(&body.source);
        !may_be_inlined && are_constants(&body.defaults)
    };
    object.body.as_deref().is_some_and(is_closed) && !lists.write_functions.has(schema, name)
}

fn begins_with_write(body: &str) -> bool {
    let tokens: Vec<Token> = Lexer::new(body.as_bytes()).collect();
    let mut reader = Reader::new(body.as_bytes(), &tokens);
    reader.accept_all(&["BEGIN", "ATOMIC"]);
    reader.accept_any(&["INSERT", "UPDATE", "DELETE"])
}

/// Numbers and strings, of no type in particular or of these.
fn are_constants(values: &str) -> bool {
    const WORDS: [&str; 9] = [
        "bigint",
        "boolean",
        "character",
        "false",
        "integer",
        "null",
        "text",
        "true",
        "varying",
    ];
    let source = |token: &Token| values.get(token.start..token.end).unwrap_or_default();
    Lexer::new(values.as_bytes()).all(|token| match token.kind {
        lexer::Kind::Number | lexer::Kind::Literal(Notation::Plain) => true,
        lexer::Kind::Punctuation => matches!(source(&token), "," | "::"),
        lexer::Kind::Word => WORDS.contains(&source(&token).to_ascii_lowercase().as_str()),
        _ => false,
    })
}

fn by_itself(object: &Object, lists: &Lists) -> Finding {
    let title = title(object);
    let (schema, name) = (Some(&*object.schema), &*object.name);
    match object.id.kind {
        Kind::Builtin => return builtin(name),
        Kind::Function if lists.write_functions.has(schema, name) => {
            return Finding::Writes(format!("{title}, which is in write_functions").into());
        }
        Kind::Relation if lists.primary_tables.has(schema, name) => {
            return Finding::Primary(format!("{title}, which is in primary_tables").into());
        }
        _ => {}
    }
    match object.nature {
        Nature::Volatile if object.body.is_none() => {
            Finding::Writes(format!("{title}, {VOLATILE}").into())
        }
        Nature::Sequence => Finding::Primary(format!("{title}, which is a sequence").into()),
        Nature::Unlogged => Finding::Primary(format!("{title}, which is unlogged").into()),
        Nature::Foreign => Finding::Primary(format!("{title}, which is foreign").into()),
        Nature::Plain | Nature::Volatile => by_text(object),
    }
}

fn builtin(name: &str) -> Finding {
    match functions::verdict(name) {
        Some(Verdict::Safe) => Finding::Reads,
        Some(Verdict::NodeLocal) => {
            Finding::Primary(format!("{name}(), which is about one node").into())
        }
        Some(Verdict::Writes) => Finding::Writes(format!("{name}(), which writes").into()),
        Some(Verdict::AdvisoryLock | Verdict::Session) => {
            Finding::Writes(format!("{name}(), which changes the session").into())
        }
        None => Finding::Writes(format!("{name}(), which is not known").into()),
    }
}

/// What its text calls of PostgreSQL's own. Whether a name means PostgreSQL's function is not
/// looked at.
fn by_text(object: &Object) -> Finding {
    let mut worst = Finding::Reads;
    let mut follows_for = false;
    for word in words(&object.text) {
        let name = word.text.to_ascii_lowercase();
        let found = if follows_for && ["update", "share", "no", "key"].contains(&name.as_str()) {
            Finding::Writes("a lock of rows".into())
        } else if word.is_called && functions::verdict(&name).is_some() {
            builtin(&name)
        } else if functions::is_node_local_relation(&name) {
            Finding::Primary(format!("{name}, which is about one node").into())
        } else {
            Finding::Reads
        };
        if worst < weakest_like(&found) {
            worst = inherited(object, &found);
        }
        follows_for = name == "for";
    }
    worst
}
