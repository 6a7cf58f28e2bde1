//! What a name in a query means: first the operator's lists, then PostgreSQL's own names, then the
//! catalogue of the database, if it is known. Whether an unqualified name finds PostgreSQL's or a
//! user's thing depends on the search path: it has the worst of both.

use super::catalogue::{Catalogue, Finding};
use super::classify::Rules;
use super::functions::{self, Verdict};

impl Rules<'_> {
    /// A call of the function that the path names. `given` is what the catalogue's functions of the name do
    /// with what they are given here, where that makes a difference.
    pub fn function(&self, path: &[String], given: Option<&Finding>) -> Finding {
        let Some((name, schema)) = split(path) else {
            return Finding::Writes("a function without a name".into());
        };
        let lists = self.lists;
        if lists.write_functions.may_have(schema, name) {
            return Finding::Writes(format!("function {name}() is in write_functions").into());
        }
        if lists.read_only_functions.has(schema, name) {
            return Finding::Reads;
        }
        let builtin = match schema {
            None | Some("pg_catalog") => functions::verdict(name).map(|it| of_builtin(name, it)),
            Some(_) => None,
        };
        let of_user = self.catalogue.and_then(|catalogue| {
            let function = given.or_else(|| catalogue.function(self.how, schema, name));
            // `type(value)` is a cast.
            function.or_else(|| match builtin {
                None => catalogue.type_named(schema, name),
                Some(_) => None,
            })
        });
        match (builtin, of_user) {
            (Some(builtin), None) => builtin,
            (None, Some(found)) => found.clone(),
            (Some(builtin), Some(found)) => builtin.max(found.clone()),
            (None, None) => self.unknown(format!("function {}()", path.join("."))),
        }
    }

    /// Reading the relation that the path names.
    pub fn relation(&self, path: &[String]) -> Finding {
        let Some((name, schema)) = split(path) else {
            return Finding::Writes("a relation without a name".into());
        };
        if self.lists.primary_tables.may_have(schema, name) {
            return Finding::Primary(format!("{name} is in primary_tables").into());
        }
        if self.lists.replica_tables.has(schema, name) {
            return Finding::Reads;
        }
        if let Some(reason) = node_local_relation(schema, name) {
            return Finding::Primary(reason.into());
        }
        let Some(catalogue) = self.catalogue else {
            return Finding::Reads;
        };
        match catalogue.relation(self.how, schema, name) {
            Some(found) => found.clone(),
            None => self.unknown(format!("relation {}", path.join("."))),
        }
    }

    /// A cast to the type that the path names.
    pub fn type_named(&self, path: &[String]) -> Finding {
        let (Some(catalogue), Some((name, schema))) = (self.catalogue, split(path)) else {
            return Finding::Reads;
        };
        match catalogue.type_named(schema, name) {
            Some(found) => found.clone(),
            None => self.unknown(format!("type {}", path.join("."))),
        }
    }

    /// An operator without a schema.
    pub fn operator(&self, sign: &str) -> Finding {
        if self.lists.read_only_functions.has_sign(sign) {
            return Finding::Reads;
        }
        let of_user = self.user_operator(sign);
        match (functions::is_builtin_operator(sign), of_user) {
            (true, None) => Finding::Reads,
            (_, Some(found)) => found.clone(),
            (false, None) => self.unknown(format!("operator {sign}")),
        }
    }

    /// An operator in a schema other than PostgreSQL's own.
    pub fn operator_in_schema(&self, sign: &str) -> Finding {
        if self.lists.read_only_functions.has_sign(sign) {
            return Finding::Reads;
        }
        let unknown = || Finding::Writes("an operator of the user".into());
        self.user_operator(sign).cloned().unwrap_or_else(unknown)
    }

    /// In doubt it writes. A catalogue that lacks a name may be older than the thing.
    fn unknown(&self, what: String) -> Finding {
        let missed = &self.notes.missed;
        missed.set(missed.get() || self.catalogue.is_some());
        Finding::Writes(format!("{what} is not known").into())
    }

    fn user_operator(&self, sign: &str) -> Option<&Finding> {
        // The second way to write it; `!=` itself can be no operator's name.
        let sign = if sign == "!=" { "<>" } else { sign };
        self.catalogue?.operator(self.how, sign)
    }

    /// `value.name`, a call if the value has no such column. After a table's name (`of_value` is
    /// false) that is taken for a column unless a function is known that it may call.
    pub fn attribute(&self, name: &str, of_value: bool) -> Finding {
        let found = self
            .catalogue
            .and_then(|catalogue| catalogue.attribute(self.how, name));
        let in_doubt = match (functions::verdict(name), found, self.catalogue) {
            (Some(Verdict::Safe), None, _) => false,
            (Some(_), _, _) | (None, Some(_), _) => true,
            (None, None, Some(_)) => false,
            (None, None, None) => of_value,
        };
        if !in_doubt || self.lists.read_only_functions.has(None, name) {
            return Finding::Reads;
        }
        Finding::Writes(format!("(...).{name} may call a function that writes").into())
    }
}

/// The reason why only the primary's answer about this relation is right.
fn node_local_relation(schema: Option<&str>, name: &str) -> Option<String> {
    match schema {
        None | Some("pg_catalog") => {
            functions::is_node_local_relation(name).then(|| format!("{name} is about one node"))
        }
        Some(schema) if schema == "pg_temp" || schema.starts_with("pg_temp_") => {
            Some(format!("{name} is temporary"))
        }
        Some(_) => None,
    }
}

fn of_builtin(name: &str, verdict: Verdict) -> Finding {
    match verdict {
        Verdict::Safe => Finding::Reads,
        Verdict::NodeLocal => {
            Finding::Primary(format!("function {name}() is about one node").into())
        }
        // Judged by its arguments, of which the tree knows no values.
        Verdict::Session if name == "set_config" => Finding::Reads,
        Verdict::Writes => Finding::Writes(format!("function {name}() writes").into()),
        Verdict::AdvisoryLock | Verdict::Session => {
            Finding::Writes(format!("function {name}() changes the session").into())
        }
    }
}

fn split(path: &[String]) -> Option<(&str, Option<&str>)> {
    let (name, schemas) = path.split_last()?;
    Some((name, schemas.last().map(String::as_str)))
}

/// What any expression may do in this database.
pub(super) fn everything(catalogue: Option<&Catalogue>) -> Finding {
    catalogue.map_or(Finding::Reads, |catalogue| catalogue.everything().clone())
}
