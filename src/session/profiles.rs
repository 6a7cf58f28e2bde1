//! Profiles: what the operator wants of reads, by database, user, application and table; and how
//! that and the client's own wishes make one level.

use std::sync::Arc;
use std::time::Duration;

use super::preferences::stricter;
use crate::routing::{Level, OnLag};
use crate::sql::Relation;

/// All profiles, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Profiles(pub Vec<Profile>);

/// One profile. An empty list of patterns fits everything; without `tables` it is for connections.
#[derive(Clone, Debug)]
pub struct Profile {
    pub databases: Vec<Glob>,
    pub users: Vec<Glob>,
    pub applications: Vec<Glob>,
    pub tables: Vec<TableGlob>,
    pub wants: Wants,
    pub force: Force,
}

/// How much a profile weighs against what a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// The client may ask for something else.
    Default,
    /// The client may ask for more, never for less.
    Enforced,
}

/// What is wanted of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    pub level: Level,
    /// None is as in the configuration's `[routing]`.
    pub max_wait: Option<Duration>,
    pub on_lag: Option<OnLag>,
}

impl Wants {
    pub fn level(level: Level) -> Wants {
        Wants {
            level,
            max_wait: None,
            on_lag: None,
        }
    }

    /// Of two the one that promises more.
    pub fn stricter(self, other: Wants) -> Wants {
        match stricter(self.level, other.level) == self.level {
            true => self,
            false => other,
        }
    }

    fn bounded(self, max_staleness: Option<Duration>) -> Wants {
        match (self.level, max_staleness) {
            (Level::Eventual { .. }, Some(_)) => Wants {
                level: Level::Eventual { max_staleness },
                ..self
            },
            _ => self,
        }
    }
}

/// What the client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// By a comment, else by SET, else by a startup option.
    pub level: Option<Level>,
    /// The same for the bound of `eventual`.
    pub max_staleness: Option<Duration>,
    /// Where neither the client nor a profile says anything.
    pub default: Level,
}

/// The profiles that apply to one connection, as long as its application's name stays.
#[derive(Clone, Debug)]
pub struct Applied {
    profiles: Arc<Profiles>,
    database: Box<str>,
    user: Box<str>,
    application: Box<str>,
    /// The first that is for connections.
    connection: Option<usize>,
    /// Those for connections and those for tables that are enforced or of use.
    enforced: Vec<usize>,
    tables: Vec<usize>,
}

impl Profiles {
    /// Those of a connection; none if there are none at all.
    pub fn of(self: &Arc<Profiles>, database: &str, user: &str) -> Option<Box<Applied>> {
        if self.0.is_empty() {
            return None;
        }
        let mut applied = Applied {
            profiles: Arc::clone(self),
            database: database.into(),
            user: user.into(),
            application: Box::default(),
            connection: None,
            enforced: Vec::new(),
            tables: Vec::new(),
        };
        applied.apply();
        Some(Box::new(applied))
    }
}

impl Applied {
    /// The application has this name now.
    pub fn follow(&mut self, application: &str) {
        if *self.application != *application {
            self.application = application.into();
            self.apply();
        }
    }

    fn apply(&mut self) {
        let fits = |globs: &[Glob], name: &str| globs.is_empty() || any(globs, name);
        let applies = |profile: &Profile| {
            fits(&profile.databases, &self.database)
                && fits(&profile.users, &self.user)
                && fits(&profile.applications, &self.application)
        };
        let profiles = self.profiles.0.iter().enumerate();
        let applying: Vec<(usize, &Profile)> =
            profiles.filter(|(_, profile)| applies(profile)).collect();
        let for_connections = |(_, profile): &&(usize, &Profile)| profile.tables.is_empty();
        let place = |(place, _): &(usize, &Profile)| *place;
        self.connection = applying.iter().find(for_connections).map(place);
        let enforced = applying.iter().filter(for_connections);
        let enforced = enforced.filter(|(_, profile)| profile.force == Force::Enforced);
        self.enforced = enforced.map(place).collect();
        let for_tables = applying.iter().filter(|profile| !for_connections(profile));
        self.tables = for_tables.map(place).collect();
    }

    /// What a statement that reads `tables` gets.
    ///
    /// What the client asks for comes before any profile. Then each table gets its own first profile,
    /// or else the connection's; and the strictest of them counts. Last come the enforced profiles:
    /// nothing is laxer than the strictest of those that fit.
    pub fn wants(&self, tables: &[Relation], asked: &Asked) -> Wants {
        let connection = self.connection.map(|place| self.profile(place).wants);
        let base = connection.unwrap_or(Wants::level(asked.default));
        let base = base.bounded(asked.max_staleness);
        let wants = match asked.level {
            Some(level) => Wants { level, ..base },
            None => {
                let tables = tables.iter().map(|table| self.of_table(table, base, asked));
                tables.reduce(Wants::stricter).unwrap_or(base)
            }
        };
        let enforced = self.enforced.iter().map(|place| self.profile(*place));
        let of_tables = self.tables.iter().map(|place| self.profile(*place));
        let of_tables = of_tables.filter(|profile| {
            profile.force == Force::Enforced
                && tables.iter().any(|table| profile.fit(table) > Fit::No)
        });
        let enforced = enforced.chain(of_tables).map(|profile| profile.wants);
        enforced.fold(wants, Wants::stricter)
    }

    /// Which profiles have a say in that, by their places in the file: those of the tables, the
    /// connection's, and the enforced ones.
    pub fn with_a_say(&self, tables: &[Relation]) -> Vec<usize> {
        let fit = |place: usize, table: &Relation| self.profile(place).fit(table);
        let first_of = |table: &Relation| {
            let mut places = self.tables.iter().copied();
            places.find(|place| fit(*place, table) == Fit::Certain)
        };
        let has_own = |table: &Relation| first_of(table).is_some();
        let of_connection = self
            .connection
            .filter(|_| tables.is_empty() || !tables.iter().all(has_own));
        let may_be = self.tables.iter().copied().filter(|place| {
            let enforced = self.profile(*place).force == Force::Enforced;
            let fits = tables.iter().map(|table| fit(*place, table));
            fits.max()
                .is_some_and(|fit| fit == Fit::Possible || enforced && fit == Fit::Certain)
        });
        let mut places: Vec<usize> = tables.iter().filter_map(first_of).collect();
        places.extend(of_connection);
        places.extend(may_be);
        places.extend(&self.enforced);
        places.sort_unstable();
        places.dedup();
        places
    }

    /// A name without a schema may mean the table of a pattern with one: that makes it stricter if
    /// anything.
    fn of_table(&self, table: &Relation, base: Wants, asked: &Asked) -> Wants {
        let of = |fit: Fit| {
            let profiles = self.tables.iter().map(|place| self.profile(*place));
            let fitting = profiles.filter(move |profile| profile.fit(table) == fit);
            fitting.map(|profile| profile.wants.bounded(asked.max_staleness))
        };
        let certain = of(Fit::Certain).next().unwrap_or(base);
        of(Fit::Possible).fold(certain, Wants::stricter)
    }

    fn profile(&self, place: usize) -> &Profile {
        &self.profiles.0[place]
    }
}

/// Whether a profile is for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    /// The search path decides, or letters that are not told apart.
    Possible,
    Certain,
}

impl Profile {
    fn fit(&self, table: &Relation) -> Fit {
        let fits = self.tables.iter().map(|pattern| pattern.fit(table));
        fits.max().unwrap_or(Fit::No)
    }
}

/// A pattern of names: `*` stands for any letters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<[char]>);

impl Glob {
    pub fn new(pattern: &str) -> Glob {
        Glob(pattern.chars().collect())
    }

    fn fits_all(&self) -> bool {
        self.0.iter().all(|letter| *letter == '*')
    }

    /// The last star takes one letter more whenever what follows it does not fit.
    pub fn fits(&self, name: &str) -> bool {
        let (pattern, name) = (&self.0, name.chars().collect::<Vec<char>>());
        let (mut at, mut place, mut star) = (0, 0, None);
        while place < name.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, place));
                    at += 1;
                }
                Some(letter) if *letter == '?' || *letter == name[place] => {
                    at += 1;
                    place += 1;
                }
                _ => {
                    let Some((back, taken)) = star else {
                        return false;
                    };
                    star = Some((back, taken + 1));
                    (at, place) = (back + 1, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|letter| *letter == '*')
    }
}

fn any(globs: &[Glob], name: &str) -> bool {
    globs.iter().any(|glob| glob.fits(name))
}

/// How a name's bytes beyond ASCII come.
const BEYOND_ASCII: char = '\u{ff}';

/// `name`, in whatever schema, or `schema.name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableGlob {
    schema: Option<Glob>,
    name: Glob,
}

impl TableGlob {
    /// Of names in a statement's text each byte beyond ASCII is this letter, whatever it is: so it is in the
    /// pattern, which then fits other names too.
    pub fn new(pattern: &str) -> TableGlob {
        let letter = |byte: u8| match byte.is_ascii() {
            true => char::from(byte),
            false => BEYOND_ASCII,
        };
        let pattern: String = pattern.bytes().map(letter).collect();
        match pattern.split_once('.') {
            Some((schema, name)) => TableGlob {
                schema: Some(Glob::new(schema)),
                name: Glob::new(name),
            },
            None => TableGlob {
                schema: None,
                name: Glob::new(&pattern),
            },
        }
    }

    fn fit(&self, table: &Relation) -> Fit {
        if !self.name.fits(&table.name) {
            return Fit::No;
        }
        let schema = self.schema.iter();
        let mut letters = schema.chain([&self.name]).flat_map(|glob| glob.0.iter());
        let certain = match letters.any(|letter| *letter == BEYOND_ASCII) {
            true => Fit::Possible,
            false => Fit::Certain,
        };
        match (&self.schema, &table.schema) {
            (None, _) => certain,
            // Else every name without a schema might be its.
            (Some(_), None) if self.name.fits_all() => Fit::No,
            (Some(_), None) => Fit::Possible,
            (Some(wanted), Some(schema)) if wanted.fits(schema) => certain,
            (Some(_), Some(_)) => Fit::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        let table = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "a", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("*_log", "event_log", true),
            ("*_log", "event_logs", false),
            ("?", "ä", true),
            ("?", "ab", false),
            ("a?c*", "abcd", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("A", "a", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(Glob::new(pattern).fits(name), expected, "{pattern} {name}");
        }
    }

    const EVENTUAL: fn(u64) -> Level = |seconds| Level::Eventual {
        max_staleness: Some(Duration::from_secs(seconds)),
    };

    fn profile(tables: &[&str], level: Level, force: Force) -> Profile {
        Profile {
            databases: Vec::new(),
            users: Vec::new(),
            applications: Vec::new(),
            tables: tables
                .iter()
                .map(|pattern| TableGlob::new(pattern))
                .collect(),
            wants: Wants::level(level),
            force,
        }
    }

    fn tables(names: &[&str]) -> Vec<Relation> {
        let relation = |name: &&str| match name.split_once('.') {
            Some((schema, name)) => Relation {
                schema: Some(schema.into()),
                name: name.into(),
            },
            None => Relation {
                schema: None,
                name: (*name).into(),
            },
        };
        names.iter().map(relation).collect()
    }

    fn asked(level: Option<Level>) -> Asked {
        Asked {
            level,
            max_staleness: None,
            default: Level::Session,
        }
    }

    #[test]
    fn the_strictest_of_the_tables_counts() {
        use Force::Default;
        let profiles = Profiles(vec![
            profile(&["payments", "payment_*"], Level::Strong, Default),
            profile(&["products"], EVENTUAL(60), Default),
            profile(&["products", "brands"], EVENTUAL(5), Default),
            profile(&["audit.entries"], Level::Strong, Default),
            profile(&["stats.*"], EVENTUAL(300), Default),
            profile(&["vault.*"], Level::Strong, Default),
        ]);
        let applied = Arc::new(profiles).of("app", "app").unwrap();
        let cases: [(&[&str], Level); 13] = [
            (&["vault.keys"], Level::Strong),
            (&[], Level::Session),
            (&["other"], Level::Session),
            (&["payments"], Level::Strong),
            (&["public.payment_methods"], Level::Strong),
            // The first that fits is the table's own.
            (&["products"], EVENTUAL(60)),
            (&["products", "brands"], EVENTUAL(5)),
            // A table without a profile has the connection's level.
            (&["products", "other"], Level::Session),
            (&["products", "payments", "other"], Level::Strong),
            (&["audit.entries"], Level::Strong),
            (&["public.entries"], Level::Session),
            // It may be the one of the pattern: that only ever makes it stricter.
            (&["entries"], Level::Strong),
            (&["visits"], Level::Session),
        ];
        for (names, expected) in cases {
            let wants = applied.wants(&tables(names), &asked(None));
            assert_eq!(wants.level, expected, "{names:?}");
        }
        let wants = applied.wants(&tables(&["stats.visits"]), &asked(None));
        assert_eq!(wants.level, EVENTUAL(300));
    }

    /// Comment, SET and startup option are told apart before; here they are what is asked for.
    #[test]
    fn the_client_comes_before_profiles_unless_they_are_enforced() {
        let case = |connection: Option<(Level, Force)>, table: Option<(Level, Force)>, level| {
            let mut profiles = Vec::new();
            profiles.extend(connection.map(|(level, force)| profile(&[], level, force)));
            profiles.extend(table.map(|(level, force)| profile(&["t"], level, force)));
            profiles.push(profile(&["other"], Level::Session, Force::Default));
            let applied = Arc::new(Profiles(profiles)).of("app", "app").unwrap();
            applied.wants(&tables(&["t"]), &asked(level)).level
        };
        use Force::{Default, Enforced};
        let (strong, session) = (Level::Strong, Level::Session);
        let lax = EVENTUAL(60);
        let table = [
            (None, None, None, session),
            (Some((lax, Default)), None, None, lax),
            (Some((lax, Default)), Some((strong, Default)), None, strong),
            (Some((strong, Default)), Some((lax, Default)), None, lax),
            (Some((strong, Default)), None, Some(lax), lax),
            (None, Some((strong, Default)), Some(lax), lax),
            (None, Some((lax, Default)), Some(strong), strong),
            (Some((strong, Enforced)), None, Some(lax), strong),
            (Some((strong, Enforced)), Some((lax, Default)), None, strong),
            (None, Some((strong, Enforced)), Some(lax), strong),
            (None, Some((session, Enforced)), Some(lax), session),
            (None, Some((session, Enforced)), Some(strong), strong),
            (None, Some((EVENTUAL(5), Enforced)), Some(lax), EVENTUAL(5)),
            (None, Some((lax, Enforced)), Some(EVENTUAL(5)), EVENTUAL(5)),
        ];
        for (connection, of_table, level, expected) in table {
            let wants = case(connection, of_table, level);
            assert_eq!(
                wants, expected,
                "{connection:?}, {of_table:?}, asked {level:?}"
            );
        }
    }

    /// Bytes beyond ASCII are not told apart: a pattern with some makes statements stricter, never laxer.
    #[test]
    fn a_pattern_beyond_ascii_is_no_laxer() {
        let profiles = Profiles(vec![
            profile(&["caf\u{e9}s"], Level::Strong, Force::Enforced),
            profile(&["s\u{f6}\u{df}*"], EVENTUAL(60), Force::Default),
        ]);
        let applied = Arc::new(profiles).of("app", "app").unwrap();
        let cases = [
            ("caf\u{ff}\u{ff}s", Level::Strong),
            ("cafes", Level::Session),
            ("s\u{ff}\u{ff}\u{ff}\u{ff}e", Level::Session),
        ];
        for (name, expected) in cases {
            let wants = applied.wants(&tables(&[name]), &asked(None));
            assert_eq!(wants.level, expected, "{name}");
        }
    }

    #[test]
    fn a_bound_that_is_asked_for_bounds_a_profile_that_is_not_enforced() {
        let bound = |force| {
            let profiles = Profiles(vec![profile(&["t"], EVENTUAL(60), force)]);
            let applied = Arc::new(profiles).of("app", "app").unwrap();
            let ask = |seconds| Asked {
                max_staleness: Some(Duration::from_secs(seconds)),
                ..asked(None)
            };
            [5, 300].map(|seconds| applied.wants(&tables(&["t"]), &ask(seconds)).level)
        };
        assert_eq!(bound(Force::Default), [EVENTUAL(5), EVENTUAL(300)]);
        assert_eq!(bound(Force::Enforced), [EVENTUAL(5), EVENTUAL(60)]);
    }

    #[test]
    fn those_with_a_say_are_told() {
        use Force::{Default, Enforced};
        let profiles = Profiles(vec![
            profile(&["products"], EVENTUAL(60), Default),
            profile(&["products", "brands"], EVENTUAL(5), Default),
            profile(&["audit.entries"], Level::Strong, Default),
            profile(&[], Level::Session, Default),
            profile(&["brands"], Level::Strong, Enforced),
            profile(&[], Level::Session, Default),
        ]);
        let applied = Arc::new(profiles).of("app", "app").unwrap();
        let cases: [(&[&str], &[usize]); 6] = [
            (&[], &[3]),
            (&["other"], &[3]),
            (&["products"], &[0]),
            (&["products", "other"], &[0, 3]),
            (&["brands"], &[1, 4]),
            (&["entries"], &[2, 3]),
        ];
        for (names, places) in cases {
            assert_eq!(applied.with_a_say(&tables(names)), places, "{names:?}");
        }
    }

    #[test]
    fn a_connection_is_known_by_database_user_and_application() {
        let only = |part: &str| {
            let mut profile = profile(&[], Level::Strong, Force::Default);
            let globs = vec![Glob::new("billing*")];
            match part {
                "database" => profile.databases = globs,
                "user" => profile.users = globs,
                _ => profile.applications = globs,
            }
            Arc::new(Profiles(vec![profile]))
        };
        let table = [
            ("database", ("billing-eu", "app", "web"), true),
            ("database", ("app", "billing", "billing"), false),
            ("user", ("app", "billing", "web"), true),
            ("application", ("app", "app", "billing-job"), true),
            ("application", ("billing", "billing", "web"), false),
        ];
        for (part, (database, user, application), expected) in table {
            let mut applied = only(part).of(database, user).unwrap();
            applied.follow(application);
            let level = applied.wants(&[], &asked(None)).level;
            assert_eq!(level == Level::Strong, expected, "{part}");
        }
        let mut applied = only("application").of("app", "app").unwrap();
        applied.follow("billing");
        applied.follow("web");
        assert_eq!(applied.wants(&[], &asked(None)).level, Level::Session);
        assert!(Arc::new(Profiles::default()).of("app", "app").is_none());
    }
}
