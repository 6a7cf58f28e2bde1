//! The walk over a query's tree that finds what it calls and reads. Every field of every node is
//! named, so that a new version of the parser cannot add one unseen; nodes of other dialects end
//! the walk.

use sqlparser::ast::{
    Cte, Distinct, Fetch, GroupByExpr, GroupByWithModifier, Ident, Join, JoinConstraint,
    JoinOperator, LimitClause, NamedWindowDefinition, NamedWindowExpr, ObjectName, Offset, OrderBy,
    OrderByExpr, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableAlias, TableFactor, TableSample, TableSampleKind, TableWithJoins, Values,
    WildcardAdditionalOptions, With, XmlTableColumnOption,
};

use super::Relation;
use super::catalogue::Finding;
use super::classify::Rules;
use super::given::Given;
use super::query::relation;

/// `Err` is the reason why the query is a write.
pub(super) type Seen = Result<(), String>;

pub(super) struct Walk<'a> {
    pub(super) rules: Rules<'a>,
    given: Given,
    primary_only: Option<Box<str>>,
    /// Names that WITH gives to queries, as far as they can be seen from here.
    with_names: Vec<String>,
    relations: Vec<Relation>,
}

impl<'a> Walk<'a> {
    /// `given` is what the query's calls do with SQL that they are given.
    pub fn new(rules: Rules<'a>, mut given: Given) -> Self {
        Walk {
            rules,
            relations: std::mem::take(&mut given.relations),
            given,
            primary_only: None,
            with_names: Vec::new(),
        }
    }

    /// Why only the primary's answer is right, if it met such a thing; and the relations that it
    /// met, among them names of WITH.
    pub fn into_found(self) -> (Option<Box<str>>, Vec<Relation>) {
        (self.primary_only, self.relations)
    }

    /// Takes note of what a part of the query does.
    pub fn found(&mut self, finding: Finding) -> Seen {
        match finding {
            Finding::Reads => Ok(()),
            Finding::Primary(reason) => {
                self.primary_only.get_or_insert(reason);
                Ok(())
            }
            Finding::Writes(reason) => Err(reason.into()),
        }
    }

    pub fn query(&mut self, query: &Query) -> Seen {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        if !locks.is_empty() {
            return Err("it locks rows".to_owned());
        }
        plain(for_clause.is_none() && settings.is_none() && format_clause.is_none())?;
        plain(pipe_operators.is_empty())?;
        let outer_names = self.with_names.len();
        if let Some(With { cte_tables, .. }) = with {
            let names = cte_tables.iter().map(|cte| name_of(&cte.alias.name));
            self.with_names.extend(names);
            for Cte { query, from, .. } in cte_tables {
                plain(from.is_none())?;
                self.query(query)?;
            }
        }
        self.body(body)?;
        self.order_by(order_by.as_ref())?;
        match limit_clause {
            None => {}
            Some(LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            }) => {
                self.exprs(limit)?;
                self.exprs(offset.iter().map(|Offset { value, .. }| value))?;
                self.exprs(limit_by)?;
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => return other_dialect(),
        }
        if let Some(Fetch { quantity, .. }) = fetch {
            self.exprs(quantity)?;
        }
        self.with_names.truncate(outer_names);
        Ok(())
    }

    fn body(&mut self, body: &SetExpr) -> Seen {
        let mut body = body;
        loop {
            match body {
                SetExpr::Select(select) => return self.select(select),
                SetExpr::Query(query) => return self.query(query),
                SetExpr::SetOperation { left, right, .. } => {
                    self.body(right)?;
                    body = left;
                }
                SetExpr::Values(Values { rows, .. }) => {
                    return rows.iter().try_for_each(|row| self.exprs(row.iter()));
                }
                SetExpr::Insert(_)
                | SetExpr::Update(_)
                | SetExpr::Delete(_)
                | SetExpr::Merge(_) => return Err("a part of it changes rows".to_owned()),
                SetExpr::Table(table) => {
                    let path = [&table.schema_name, &table.table_name];
                    let path: Vec<_> = path.into_iter().flatten().map(name_of).collect();
                    return self.relation_path(&path);
                }
            }
        }
    }

    fn select(&mut self, select: &Select) -> Seen {
        let Select {
            select_token: _,
            optimizer_hints: _,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor: _,
        } = select;
        if into.is_some() {
            return Err("SELECT INTO creates a table".to_owned());
        }
        plain(select_modifiers.is_none() && top.is_none() && exclude.is_none())?;
        plain(lateral_views.is_empty() && prewhere.is_none() && connect_by.is_empty())?;
        plain(cluster_by.is_empty() && distribute_by.is_empty() && sort_by.is_empty())?;
        plain(qualify.is_none() && value_table_mode.is_none())?;
        if let Some(Distinct::On(expressions)) = distinct {
            self.exprs(expressions)?;
        }
        projection.iter().try_for_each(|item| self.item(item))?;
        from.iter().try_for_each(|from| self.from(from))?;
        self.exprs(selection)?;
        self.group_by(group_by)?;
        self.exprs(having)?;
        named_window
            .iter()
            .try_for_each(|NamedWindowDefinition(_, window)| match window {
                NamedWindowExpr::NamedWindow(_) => Ok(()),
                NamedWindowExpr::WindowSpec(spec) => self.window(spec),
            })
    }

    fn item(&mut self, item: &SelectItem) -> Seen {
        match item {
            SelectItem::UnnamedExpr(expr) => self.expr(expr),
            SelectItem::ExprWithAlias { expr, alias } => {
                identifier(alias)?;
                self.expr(expr)
            }
            SelectItem::QualifiedWildcard(kind, options) => {
                wildcard(options)?;
                match kind {
                    SelectItemQualifiedWildcardKind::ObjectName(_) => Ok(()),
                    SelectItemQualifiedWildcardKind::Expr(expr) => self.expr(expr),
                }
            }
            SelectItem::Wildcard(options) => wildcard(options),
            SelectItem::ExprWithAliases { .. } => other_dialect(),
        }
    }

    fn group_by(&mut self, group_by: &GroupByExpr) -> Seen {
        let modifiers = match group_by {
            GroupByExpr::All(modifiers) => modifiers,
            GroupByExpr::Expressions(expressions, modifiers) => {
                self.exprs(expressions)?;
                modifiers
            }
        };
        modifiers.iter().try_for_each(|modifier| match modifier {
            GroupByWithModifier::GroupingSets(expr) => self.expr(expr),
            _ => other_dialect(),
        })
    }

    fn order_by(&mut self, order_by: Option<&OrderBy>) -> Seen {
        match order_by {
            None => Ok(()),
            Some(OrderBy { kind, interpolate }) => {
                plain(interpolate.is_none())?;
                match kind {
                    OrderByKind::Expressions(expressions) => self.orders(expressions),
                    OrderByKind::All(_) => other_dialect(),
                }
            }
        }
    }

    pub fn orders(&mut self, orders: &[OrderByExpr]) -> Seen {
        orders.iter().try_for_each(|order| {
            let OrderByExpr {
                expr,
                options: _,
                with_fill,
            } = order;
            plain(with_fill.is_none())?;
            self.expr(expr)
        })
    }

    fn from(&mut self, from: &TableWithJoins) -> Seen {
        let TableWithJoins { relation, joins } = from;
        self.table(relation)?;
        joins.iter().try_for_each(|join| self.join(join))
    }

    fn join(&mut self, join: &Join) -> Seen {
        let Join {
            relation,
            global: _,
            join_operator,
        } = join;
        self.table(relation)?;
        match join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint)
            | JoinOperator::Right(constraint)
            | JoinOperator::RightOuter(constraint)
            | JoinOperator::FullOuter(constraint)
            | JoinOperator::CrossJoin(constraint) => match constraint {
                JoinConstraint::On(expr) => self.expr(expr),
                JoinConstraint::Using(_)
                | JoinConstraint::UsingAlias(..)
                | JoinConstraint::Natural => self.operators(&["="]),
                JoinConstraint::None => Ok(()),
            },
            _ => other_dialect(),
        }
    }

    fn table(&mut self, table: &TableFactor) -> Seen {
        match table {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                partitions,
                json_path,
                sample,
                index_directives,
                ..
            } => {
                plain(with_hints.is_empty() && version.is_none() && partitions.is_empty())?;
                plain(json_path.is_none() && index_directives.is_empty())?;
                self.table_alias(alias.as_ref())?;
                self.sample(sample.as_ref())?;
                match args {
                    Some(call) => {
                        plain(call.settings.is_none())?;
                        self.call(name)?;
                        self.arguments(&call.args)
                    }
                    None => self.relation(name),
                }
            }
            TableFactor::Derived {
                subquery,
                alias,
                sample,
                ..
            } => {
                self.table_alias(alias.as_ref())?;
                self.sample(sample.as_ref())?;
                self.query(subquery)
            }
            TableFactor::Function {
                name, args, alias, ..
            } => {
                self.table_alias(alias.as_ref())?;
                self.call(name)?;
                self.arguments(args)
            }
            TableFactor::UNNEST {
                array_exprs, alias, ..
            } => {
                self.table_alias(alias.as_ref())?;
                self.exprs(array_exprs)
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                self.table_alias(alias.as_ref())?;
                self.from(table_with_joins)
            }
            TableFactor::XmlTable {
                namespaces,
                row_expression,
                passing,
                columns,
                alias,
            } => {
                self.table_alias(alias.as_ref())?;
                self.exprs(namespaces.iter().map(|namespace| &namespace.uri))?;
                self.expr(row_expression)?;
                self.exprs(passing.arguments.iter().map(|argument| &argument.expr))?;
                columns.iter().try_for_each(|column| match &column.option {
                    XmlTableColumnOption::NamedInfo {
                        r#type,
                        path,
                        default,
                        ..
                    } => {
                        self.data_type(r#type)?;
                        self.exprs(path)?;
                        self.exprs(default)
                    }
                    XmlTableColumnOption::ForOrdinality => Ok(()),
                })
            }
            _ => other_dialect(),
        }
    }

    fn table_alias(&mut self, alias: Option<&TableAlias>) -> Seen {
        alias.map_or(Ok(()), |TableAlias { name, columns, .. }| {
            identifier(name)?;
            columns.iter().try_for_each(|column| {
                identifier(&column.name)?;
                column
                    .data_type
                    .iter()
                    .try_for_each(|it| self.data_type(it))
            })
        })
    }

    fn sample(&mut self, sample: Option<&TableSampleKind>) -> Seen {
        let Some(
            TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample),
        ) = sample
        else {
            return Ok(());
        };
        let TableSample {
            quantity, offset, ..
        } = sample.as_ref();
        self.exprs(quantity.iter().map(|quantity| &quantity.value))?;
        self.exprs(offset)
    }

    fn relation(&mut self, name: &ObjectName) -> Seen {
        let path = path(name)?;
        self.relation_path(&path)
    }

    /// What the catalogue knows by a name of WITH counts all the same.
    fn relation_path(&mut self, path: &[String]) -> Seen {
        if let Some(relation) = relation(path).filter(|found| !self.relations.contains(found)) {
            self.relations.push(relation);
        }
        if let (Some(catalogue), Some((name, schemas))) = (self.rules.catalogue, path.split_last())
        {
            let schema = schemas.last().map(String::as_str);
            self.reads(catalogue.below_relation(schema, name));
        }
        if let [name] = path
            && self.with_names.contains(name)
            && let Some(catalogue) = self.rules.catalogue
            && catalogue.relation(self.rules.how, None, name).is_none()
        {
            return Ok(());
        }
        let finding = self.rules.relation(path);
        self.found(finding)
    }

    fn reads(&mut self, tables: &[Relation]) {
        for table in tables {
            if !self.relations.contains(table) {
                self.relations.push(table.clone());
            }
        }
    }

    /// A call by this name.
    pub fn call(&mut self, name: &ObjectName) -> Seen {
        let path = path(name)?;
        // `ARRAY(SELECT ...)` is syntax, and what the parser makes a call of.
        if let [name] = path.as_slice()
            && name == "array"
        {
            return Ok(());
        }
        if let (Some(catalogue), Some((name, schemas))) = (self.rules.catalogue, path.split_last())
        {
            let schema = schemas.last().map(String::as_str);
            self.reads(catalogue.below_function(schema, name));
        }
        // Syntax too, and not looked for along the search path; what it compares with is.
        if path.last().is_some_and(|name| name == "nullif") {
            self.operators(&["="])?;
        }
        let finding = self.rules.function(&path, self.given.of(&path));
        self.found(finding)
    }
}

/// Other dialects put names into single quotes, where PostgreSQL would read something else.
fn identifier(ident: &Ident) -> Seen {
    plain(ident.quote_style != Some('\''))
}

pub(super) fn path(name: &ObjectName) -> Result<Vec<String>, String> {
    name.0
        .iter()
        .map(|part| {
            let ident = part.as_ident().ok_or_else(foreign)?;
            Ok(name_of(ident))
        })
        .collect()
}

fn name_of(ident: &Ident) -> String {
    match ident.quote_style {
        None => ident.value.to_ascii_lowercase(),
        Some(_) => ident.value.clone(),
    }
}

pub(super) fn wildcard(options: &WildcardAdditionalOptions) -> Seen {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    plain(opt_ilike.is_none() && opt_exclude.is_none() && opt_except.is_none())?;
    plain(opt_replace.is_none() && opt_rename.is_none() && opt_alias.is_none())
}

pub(super) fn plain(holds: bool) -> Seen {
    if holds { Ok(()) } else { other_dialect() }
}

fn foreign() -> String {
    "syntax that is not PostgreSQL's".to_owned()
}

pub(super) fn other_dialect() -> Seen {
    Err(foreign())
}
