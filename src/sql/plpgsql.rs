//! The body of a function in PL/pgSQL, taken apart into the queries that it runs, and those that it puts
//! together and runs ([`dynamic`]). Known are the statements that do nothing but compute,
//! branch and query. One of any other kind, cursors among them, is the reason why it cannot be told what a
//! body does.
//!
//! PL/pgSQL finds the ends of its queries by keywords outside of parentheses, and so does this: each
//! token is a word of a statement, a name that is assigned to, or part of a query that is given out.
//! What a variable hides makes no difference: it can be neither called nor read from.

use super::dynamic::{self, Parameters, Template};
use super::lexer::{Kind, Lexer, Token};
use super::reader::{self, Reader};

/// All that a body runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ran {
    /// Each a whole statement.
    pub queries: Vec<Vec<u8>>,
    /// Of the texts that it executes.
    pub templates: Vec<Template>,
}

/// What a body runs; or the reason why that cannot be told.
pub(super) fn queries(text: &[u8], parameters: &Parameters) -> Result<Ran, String> {
    let mut lexer = Lexer::new(text);
    let tokens: Vec<Token> = lexer.by_ref().collect();
    let is_unclear = |token: &Token| matches!(token.kind, Kind::Broken | Kind::UnicodeName);
    if lexer.ambiguous || tokens.iter().any(is_unclear) {
        return Err("where its parts end is not clear".to_owned());
    }
    let mut body = Body {
        text,
        parameters,
        reader: Reader::new(text, &tokens),
        ran: Ran::default(),
        assigned: Vec::new(),
    };
    while body.reader.accept_sign("#") {
        body.directive()?;
    }
    while !body.reader.at_end() {
        body.statement()?;
    }
    let changes_what_it_runs = {
        let mut given = body.ran.templates.iter().flat_map(Template::given);
        given.any(|place| body.may_assign(place))
    };
    match changes_what_it_runs {
        true => Err("it changes what it is given, and runs it".to_owned()),
        false => Ok(body.ran),
    }
}

/// Whether a statement that begins so is a query.
pub(super) fn begins_query(reader: &Reader) -> bool {
    const WORDS: [&str; 5] = ["SELECT", "WITH", "VALUES", "TABLE", "EXPLAIN"];
    reader.peek_is_sign("(") || WORDS.iter().any(|word| reader.sees(word))
}

/// `Err` is the reason why it cannot be told.
type Known = Result<(), String>;

struct Body<'a> {
    text: &'a [u8],
    parameters: &'a Parameters,
    reader: Reader<'a>,
    ran: Ran,
    /// What is assigned to or declared, parts of names and what stands between them.
    assigned: Vec<&'a [Token]>,
}

impl<'a> Body<'a> {
    /// `#variable_conflict use_column` and the like.
    fn directive(&mut self) -> Known {
        let is_whole = self.reader.identifier().is_some() && self.reader.identifier().is_some();
        is_whole.then_some(()).ok_or_else(|| unread(self.reader))
    }

    /// One statement, or the part of one up to the first statement inside of it.
    fn statement(&mut self) -> Known {
        if let Some(target) = self.assigned() {
            return self.assignment(target);
        }
        let start = self.reader;
        let word = String::from_utf8_lossy(self.reader.peek_source()).to_ascii_lowercase();
        self.reader.next();
        match word.as_str() {
            "begin" | "loop" | "else" | "exception" => Ok(()),
            "end" => self.end(),
            "<<" => self.label(),
            "declare" => self.declarations(),
            "if" | "elsif" | "elseif" => {
                let condition = self.up_to(&["THEN"])?;
                self.expression(condition)?;
                self.word("THEN")
            }
            "case" => self.case(),
            "when" => self.branch(),
            "while" => {
                let condition = self.up_to(&["LOOP"])?;
                self.expression(condition)?;
                self.word("LOOP")
            }
            "for" => self.loop_for(),
            "foreach" => self.loop_foreach(),
            "exit" | "continue" => self.exit(),
            "null" => self.semicolon(),
            "perform" | "assert" => {
                let expression = self.up_to(&[";"])?;
                self.expression(expression)?;
                self.semicolon()
            }
            "return" => self.give_back(),
            "raise" => self.raise(),
            "execute" => self.execute(),
            "get" => self.diagnostics(),
            "select" | "with" => {
                self.reader = start;
                self.query_into_variables()
            }
            _ => Err(unread(start)),
        }
    }

    /// `END`, `END IF`, `END LOOP label`; the last one may lack its semicolon.
    fn end(&mut self) -> Known {
        const MOST_WORDS: usize = 2;
        for _ in 0..MOST_WORDS {
            self.reader.identifier();
        }
        if self.reader.at_end() {
            return Ok(());
        }
        self.semicolon()
    }

    fn label(&mut self) -> Known {
        let is_whole = self.reader.identifier().is_some() && self.reader.accept_sign(">>");
        is_whole.then_some(()).ok_or_else(|| unread(self.reader))
    }

    /// All of a DECLARE, up to BEGIN.
    fn declarations(&mut self) -> Known {
        while !self.reader.sees("BEGIN") && !self.reader.sees("DECLARE") {
            let declaration = self.up_to(&[";"])?;
            self.declaration(Reader::new(self.text, declaration))?;
            self.semicolon()?;
        }
        Ok(())
    }

    fn declaration(&mut self, mut reader: Reader<'a>) -> Known {
        let start = reader;
        if reader.identifier().is_none() {
            return Err(unread(start));
        }
        self.assigned.extend(start.rest().get(..1));
        if reader.accept_all(&["ALIAS", "FOR"]) {
            self.assigned.push(reader.rest());
            reader.next();
            return reader.at_end().then_some(()).ok_or_else(|| unread(start));
        }
        let mut cursor = reader;
        cursor.accept("NO");
        cursor.accept("SCROLL");
        if cursor.accept("CURSOR") {
            if !cursor.accept_any(&["FOR", "IS"]) {
                return Err(unread(cursor));
            }
            return self.query(cursor.rest());
        }
        reader.accept("CONSTANT");
        let is_default = |reader: &Reader| {
            reader.sees("DEFAULT") || reader.peek_is_sign(":=") || reader.peek_is_sign("=")
        };
        let is_behind_type =
            |reader: &Reader| reader.sees("COLLATE") || reader.sees("NOT") || is_default(reader);
        let data_type = before(&mut reader, is_behind_type);
        self.data_type(data_type)?;
        let constraints = before(&mut reader, is_default);
        if !constraints
            .iter()
            .all(|token| is_name(token) || self.is(token, "."))
        {
            return Err(unread(start));
        }
        match reader.next() {
            Some(_) => self.expression(reader.rest()),
            None => Ok(()),
        }
    }

    /// Values are cast to the type of their variable. What `t.c%TYPE` is, the name of the relation tells.
    fn data_type(&mut self, tokens: &[Token]) -> Known {
        if !tokens.iter().any(|token| self.is(token, "%")) {
            let data_type = self.source(tokens);
            self.ran
                .queries
                .push([b"SELECT NULL::", data_type].concat());
            return Ok(());
        }
        let is_known = |token: &Token| {
            is_name(token)
                || token.kind == Kind::Number
                || [".", "%", "[", "]"].iter().any(|sign| self.is(token, sign))
        };
        match tokens.iter().all(is_known) {
            true => Ok(()),
            false => Err(unread(Reader::new(self.text, tokens))),
        }
    }

    /// The value of a CASE is compared with `=`; one without a value has conditions.
    fn case(&mut self) -> Known {
        let value = self.up_to(&["WHEN"])?;
        if !value.is_empty() {
            let value = self.source(value);
            self.ran
                .queries
                .push([b"SELECT 1 = (", value, b")"].concat());
        }
        Ok(())
    }

    /// `WHEN ... THEN` of a CASE, or of an EXCEPTION: names of errors call nothing.
    fn branch(&mut self) -> Known {
        let condition = self.up_to(&["THEN"])?;
        if !self.names_errors(condition) {
            self.expression(condition)?;
        }
        self.word("THEN")
    }

    /// `name`, `SQLSTATE '...'`, several of them with OR.
    fn names_errors(&self, tokens: &[Token]) -> bool {
        let mut reader = Reader::new(self.text, tokens);
        loop {
            if reader.accept("SQLSTATE") {
                if reader.literal().is_none() {
                    return false;
                }
            } else if reader.identifier().is_none() {
                return false;
            }
            if reader.at_end() {
                return true;
            }
            if !reader.accept("OR") {
                return false;
            }
        }
    }

    fn loop_for(&mut self) -> Known {
        let targets = self.up_to(&["IN"])?;
        self.names(targets)?;
        self.word("IN")?;
        self.reader.accept("REVERSE");
        if self.reader.accept("EXECUTE") {
            self.executed(&["LOOP"])?;
            return self.word("LOOP");
        }
        let of = self.up_to(&["LOOP"])?;
        match (self.dots(of), of) {
            (Some(dots), _) => self.range(of, dots)?,
            // A cursor, whose query has been declared.
            (None, [only]) if is_name(only) => {}
            (None, query) => self.query(query)?,
        }
        self.word("LOOP")
    }

    /// Where the two dots stand between the bounds of a loop over numbers. They are no token, and the
    /// second one may begin a number.
    fn dots(&self, tokens: &[Token]) -> Option<usize> {
        let mut reader = Reader::new(self.text, tokens);
        let is_dots =
            |reader: &Reader| reader.peek().is_some_and(|it| self.starts_dots(reader, it));
        before(&mut reader, is_dots);
        reader.peek().map(|token| token.start)
    }

    fn starts_dots(&self, reader: &Reader, token: Token) -> bool {
        reader.source(token) == b"." && self.text.get(token.end) == Some(&b'.')
    }

    /// `lower..upper [BY step]`.
    fn range(&mut self, of: &[Token], dots: usize) -> Known {
        let mut reader = Reader::new(self.text, of);
        before(&mut reader, |reader| reader.sees("BY"));
        let step = reader.peek();
        let (Some(first), Some(last)) = (of.first(), of.last()) else {
            return Err(unread(reader));
        };
        let upper_end = step.map_or(last.end, |by| by.start);
        let step = step.map(|by| (by.end, last.end));
        let bounds = [(first.start, dots), (dots + "..".len(), upper_end)];
        for (start, end) in bounds.into_iter().chain(step) {
            let bound = self.text.get(start..end).unwrap_or_default();
            self.ran.queries.push([b"SELECT ", bound].concat());
        }
        Ok(())
    }

    fn loop_foreach(&mut self) -> Known {
        let targets = self.up_to(&["IN"])?;
        self.names(targets)?;
        self.word("IN")?;
        self.word("ARRAY")?;
        let array = self.up_to(&["LOOP"])?;
        self.expression(array)?;
        self.word("LOOP")
    }

    /// `EXIT [label] [WHEN condition]`.
    fn exit(&mut self) -> Known {
        let label = self.up_to(&["WHEN", ";"])?;
        self.names(label)?;
        if self.reader.accept("WHEN") {
            let condition = self.up_to(&[";"])?;
            self.expression(condition)?;
        }
        self.semicolon()
    }

    /// `RETURN [value]`, `RETURN NEXT [value]`, `RETURN QUERY query`.
    fn give_back(&mut self) -> Known {
        let is_query = self.reader.accept("QUERY");
        if is_query && self.reader.accept("EXECUTE") {
            self.executed(&[";"])?;
            return self.semicolon();
        }
        if !is_query {
            self.reader.accept("NEXT");
        }
        let value = self.up_to(&[";"])?;
        if is_query {
            self.query(value)?;
        } else if !value.is_empty() {
            self.expression(value)?;
        }
        self.semicolon()
    }

    /// `RAISE [level] ['format', value ... | error] [USING option = value, ...]`.
    fn raise(&mut self) -> Known {
        const LEVELS: [&str; 6] = ["DEBUG", "LOG", "INFO", "NOTICE", "WARNING", "EXCEPTION"];
        self.reader.accept_any(&LEVELS);
        let message = self.up_to(&["USING", ";"])?;
        if !message.is_empty() && !self.names_errors(message) {
            self.expression(message)?;
        }
        if self.reader.accept("USING") {
            let options = self.up_to(&[";"])?;
            self.expression(options)?;
        }
        self.semicolon()
    }

    /// `GET [CURRENT | STACKED] DIAGNOSTICS variable = item, ...`.
    fn diagnostics(&mut self) -> Known {
        self.reader.accept_any(&["CURRENT", "STACKED"]);
        self.word("DIAGNOSTICS")?;
        let items = self.up_to(&[";"])?;
        let is_known = |token: &Token| {
            is_name(token)
                || [".", ",", "=", ":="]
                    .iter()
                    .any(|sign| self.is(token, sign))
        };
        if !items.iter().all(is_known) {
            return Err(unread(Reader::new(self.text, items)));
        }
        self.assigned.push(items);
        self.semicolon()
    }

    /// `EXECUTE text [INTO [STRICT] target, ...] [USING value, ...]`, the last two in either order.
    fn execute(&mut self) -> Known {
        self.executed(&["INTO", ";"])?;
        if self.reader.accept("INTO") {
            self.reader.accept("STRICT");
            let targets = self.up_to(&["USING", ";"])?;
            self.names(targets)?;
            self.values(&[";"])?;
        }
        self.semicolon()
    }

    /// `text [USING value, ...]`, up to one of these words and signs.
    fn executed(&mut self, ends: &[&str]) -> Known {
        let text = self.up_to(&[&["USING"][..], ends].concat())?;
        self.expression(text)?;
        let template = Template::new(self.text, text, self.parameters)?;
        self.ran.templates.push(template);
        self.values(ends)
    }

    /// `[USING value, ...]`, up to one of these words and signs.
    fn values(&mut self, ends: &[&str]) -> Known {
        match self.reader.accept("USING") {
            true => {
                let values = self.up_to(ends)?;
                self.expression(values)
            }
            false => Ok(()),
        }
    }

    /// A query whose row goes into variables: `INTO [STRICT] target, ...`, at whatever place. It is given
    /// out without that, which would make a table.
    fn query_into_variables(&mut self) -> Known {
        let tokens = self.up_to(&[";"])?;
        let is_into = |token: &Token| reader::is_word(self.text, *token, "INTO");
        let Some(at) = tokens.iter().position(is_into) else {
            self.query(tokens)?;
            return self.semicolon();
        };
        let (query, behind) = tokens.split_at(at);
        let mut targets = Reader::new(self.text, behind);
        targets.next();
        targets.accept("STRICT");
        loop {
            if targets.identifier().is_none() {
                return Err(unread(targets));
            }
            if !targets.accept_sign(".") && !targets.accept_sign(",") {
                break;
            }
        }
        let taken = behind.len() - targets.rest().len();
        self.assigned.extend(behind.get(..taken));
        let parts = [self.source(query), self.source(targets.rest())];
        self.ran.queries.push(parts.join(&b' '));
        self.semicolon()
    }

    /// The tokens of `name.field[subscript]` if a sign of assignment follows them, and is next then.
    fn assigned(&mut self) -> Option<&'a [Token]> {
        let mut reader = self.reader;
        let start = reader.rest();
        reader.identifier()?;
        loop {
            if reader.accept_sign(".") {
                reader.identifier()?;
            } else if reader.accept_sign("[") {
                before(&mut reader, |reader| reader.peek_is_sign("]"));
                reader.accept_sign("]").then_some(())?;
            } else {
                break;
            }
        }
        let target = start.get(..start.len() - reader.rest().len())?;
        (reader.peek_is_sign(":=") || reader.peek_is_sign("=")).then(|| self.reader = reader)?;
        Some(target)
    }

    fn assignment(&mut self, target: &'a [Token]) -> Known {
        self.reader.next();
        self.assigned.push(target);
        if target.iter().any(|token| self.is(token, "[")) {
            self.expression(target)?;
        }
        let value = self.up_to(&[";"])?;
        self.expression(value)?;
        self.semicolon()
    }

    /// The tokens before the first of these words and signs outside of parentheses, which is next then.
    /// No part of a statement goes on behind a semicolon.
    fn up_to(&mut self, ends: &[&str]) -> Result<&'a [Token], String> {
        let start = self.reader;
        let is_end = |reader: &Reader| {
            let mut ends = ends.iter();
            reader.peek_is_sign(";") || ends.any(|end| reader.sees(end) || reader.peek_is_sign(end))
        };
        let tokens = before(&mut self.reader, is_end);
        let is_missed =
            self.reader.at_end() || self.reader.peek_is_sign(";") && !ends.contains(&";");
        match is_missed {
            true => Err(unread(start)),
            false => Ok(tokens),
        }
    }

    fn word(&mut self, keyword: &str) -> Known {
        let found = self.reader.accept(keyword);
        found.then_some(()).ok_or_else(|| unread(self.reader))
    }

    fn semicolon(&mut self) -> Known {
        let found = self.reader.accept_sign(";");
        found.then_some(()).ok_or_else(|| unread(self.reader))
    }

    /// What PL/pgSQL computes by putting SELECT before it: one value or several.
    fn expression(&mut self, tokens: &[Token]) -> Known {
        if tokens.is_empty() {
            return Err(unread(self.reader));
        }
        let expression = self.source(tokens);
        self.ran.queries.push([b"SELECT ", expression].concat());
        Ok(())
    }

    fn query(&mut self, tokens: &[Token]) -> Known {
        let reader = Reader::new(self.text, tokens);
        if !begins_query(&reader) {
            return Err(unread(reader));
        }
        self.ran.queries.push(self.source(tokens).to_vec());
        Ok(())
    }

    /// Whether a parameter may have another value than it was given, or its name another meaning.
    fn may_assign(&self, place: usize) -> bool {
        let mut assigned = self.assigned.iter().copied().flatten();
        assigned.any(|token| dynamic::means(self.text, *token, self.parameters, place))
    }

    /// Names that are assigned to, or of labels.
    fn names(&mut self, tokens: &'a [Token]) -> Known {
        self.assigned.push(tokens);
        let is_known = |token: &Token| {
            is_name(token)
                || token.kind == Kind::Number
                || [".", ","].iter().any(|sign| self.is(token, sign))
        };
        match tokens.iter().all(is_known) {
            true => Ok(()),
            false => Err(unread(Reader::new(self.text, tokens))),
        }
    }

    fn is(&self, token: &Token, sign: &str) -> bool {
        matches!(token.kind, Kind::Punctuation | Kind::Operator)
            && self.text.get(token.start..token.end) == Some(sign.as_bytes())
    }

    /// What stands from the first of the tokens to the last.
    fn source(&self, tokens: &[Token]) -> &'a [u8] {
        let whole = tokens.first().zip(tokens.last());
        whole
            .and_then(|(first, last)| self.text.get(first.start..last.end))
            .unwrap_or_default()
    }
}

fn is_name(token: &Token) -> bool {
    matches!(token.kind, Kind::Word | Kind::Quoted)
}

/// The tokens before the first place outside of parentheses that is an end; all, if none is.
fn before<'a>(reader: &mut Reader<'a>, is_end: impl Fn(&Reader) -> bool) -> &'a [Token] {
    let start = reader.rest();
    let mut depth = 0_usize;
    while !reader.at_end() && (depth > 0 || !is_end(reader)) {
        match reader.peek_source() {
            b"(" | b"[" => depth += 1,
            b")" | b"]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        reader.next();
    }
    let taken = start.len() - reader.rest().len();
    start.get(..taken).unwrap_or_default()
}

/// The reason names the word that is not understood.
fn unread(reader: Reader) -> String {
    const MOST_BYTES: usize = 40;
    let source = reader.peek_source();
    match source.get(..MOST_BYTES).unwrap_or(source) {
        b"" => "it has no end".to_owned(),
        word => format!("{} in it is not followed", String::from_utf8_lossy(word)),
    }
}

#[cfg(test)]
mod tests;
