//! What a catalogue is made of, as the system catalogue of a database gives it.

use crate::sql::canonical::letters;

/// All that there is, at one moment.
#[derive(Clone, Debug, Default, Hash)]
pub struct Rows {
    pub objects: Vec<Object>,
    pub edges: Vec<Edge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    pub kind: Kind,
    pub oid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Also aggregates, window functions, procedures.
    Function,
    /// A function of `pg_catalog`, judged by the reviewed table; only edges lead to it.
    Builtin,
    Operator,
    /// Values of a type: that they are shown, compared, implicitly cast.
    TypeInUse,
    /// A type that is named: a cast to it, which may run its input function and its constraints.
    TypeByName,
    Relation,
    /// What any expression may do.
    Everything,
}

#[derive(Clone, Debug, Hash)]
pub struct Object {
    pub id: ObjectId,
    pub schema: Box<str>,
    pub name: Box<str>,
    pub nature: Nature,
    /// Of a function: one argument is enough to call it.
    pub takes_one_argument: bool,
    /// The SQL that it runs: a body, a view's definition, constraints, policies. Any language.
    pub text: Box<str>,
    /// Of a function that is volatile: what may show that it only reads all the same.
    pub body: Option<Box<Body>>,
}

/// What a function runs, as the database has it.
#[derive(Clone, Debug, Hash)]
pub struct Body {
    pub language: Language,
    pub source: Box<str>,
    /// The values of arguments that are left out, separated by commas.
    pub defaults: Box<str>,
    /// Those that it is called with, if only those of type text matter: they have a name, if only an empty
    /// one. Empty where arguments may come in another order or number.
    pub parameters: Box<[Option<Box<str>>]>,
}

/// Languages whose bodies are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// A body of either form: a string, or parsed when the function was made.
    Sql,
    PlPgSql,
}

impl Object {
    /// With its names and its text as the parser gets those of statements: each byte beyond ASCII
    /// is one letter.
    pub fn new(id: ObjectId, [schema, name, text]: [&str; 3], nature: Nature) -> Object {
        Object {
            id,
            schema: letters(schema.to_owned()).into(),
            name: letters(name.to_owned()).into(),
            nature,
            takes_one_argument: false,
            text: letters(text.to_owned()).into(),
            body: None,
        }
    }

    /// A function that is volatile, with a body that can be read.
    pub fn volatile(id: ObjectId, [schema, name]: [&str; 2], body: Body) -> Object {
        let text = format!("{} {}", body.source, body.defaults);
        Object {
            body: Some(Box::new(body)),
            ..Object::new(id, [schema, name, &text], Nature::Volatile)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nature {
    /// Whatever its text and its edges say.
    Plain,
    /// A function that is volatile, or a procedure. If it has a body, that counts.
    Volatile,
    Sequence,
    Unlogged,
    Foreign,
}

/// `user` does what `used` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    pub user: ObjectId,
    pub used: ObjectId,
}
