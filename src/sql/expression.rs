//! The part of the walk over a query's tree that goes through expressions: what they call, and the
//! queries inside them.

use sqlparser::ast::{
    AccessExpr, Array, ArrayElemTypeDef, CaseWhen, DataType, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArguments, InTarget, Interval, Subscript,
    WindowFrame, WindowFrameBound, WindowSpec, WindowType,
};

use super::functions::{self, Verdict};
use super::tree::{Seen, Walk, other_dialect, path, wildcard};

/// What LIKE and its relatives stand for.
pub(super) const LIKES: [&str; 6] = ["~~", "!~~", "~~*", "!~~*", "~", "!~"];

impl Walk<'_> {
    pub fn exprs<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) -> Seen {
        exprs.into_iter().try_for_each(|expr| self.expr(expr))
    }

    /// Follows the first operand in a loop and recurses only for the others: a chain of thousands
    /// of operators leans to the left and must not cost stack.
    pub fn expr(&mut self, expr: &Expr) -> Seen {
        let mut next = Some(expr);
        while let Some(expr) = next {
            next = self.node(expr)?;
        }
        Ok(())
    }

    /// Looks at one node and all its operands but the first, which it returns.
    fn node<'e>(&mut self, expr: &'e Expr) -> Result<Option<&'e Expr>, String> {
        Ok(Some(match expr {
            Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::Value(_)
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..) => return Ok(None),
            Expr::TypedString(typed) => {
                self.data_type(&typed.data_type)?;
                return Ok(None);
            }
            Expr::IsFalse(expr)
            | Expr::IsNotFalse(expr)
            | Expr::IsTrue(expr)
            | Expr::IsNotTrue(expr)
            | Expr::IsNull(expr)
            | Expr::IsNotNull(expr)
            | Expr::IsUnknown(expr)
            | Expr::IsNotUnknown(expr)
            | Expr::IsJson { expr, .. }
            | Expr::IsNormalized { expr, .. }
            | Expr::UnaryOp { op: _, expr }
            | Expr::Extract { expr, .. }
            | Expr::Ceil { expr, field: _ }
            | Expr::Floor { expr, field: _ }
            | Expr::Collate { expr, .. }
            | Expr::Nested(expr)
            | Expr::Prefixed { value: expr, .. }
            | Expr::Named { expr, .. } => expr,
            Expr::Interval(Interval { value, .. }) => value,
            Expr::Cast {
                expr, data_type, ..
            } => {
                self.data_type(data_type)?;
                expr
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.operators(&["="])?;
                self.expr(right)?;
                left
            }
            Expr::BinaryOp { left, op: _, right }
            | Expr::AnyOp { left, right, .. }
            | Expr::AllOp { left, right, .. }
            | Expr::Position {
                expr: left,
                r#in: right,
            }
            | Expr::AtTimeZone {
                timestamp: left,
                time_zone: right,
            } => {
                self.expr(right)?;
                left
            }
            Expr::Between {
                expr, low, high, ..
            } => {
                self.operators(&["<", "<=", ">=", ">"])?;
                self.expr(low)?;
                self.expr(high)?;
                expr
            }
            Expr::Like {
                expr,
                pattern,
                escape_char,
                ..
            }
            | Expr::ILike {
                expr,
                pattern,
                escape_char,
                ..
            }
            | Expr::SimilarTo {
                expr,
                pattern,
                escape_char,
                ..
            } => {
                self.operators(&LIKES)?;
                self.expr(pattern)?;
                self.exprs(escape_char.as_deref())?;
                expr
            }
            Expr::In { expr, target, .. } => {
                self.operators(&["=", "<>"])?;
                self.in_target(target)?;
                expr
            }
            Expr::Function(function) => {
                self.function(function)?;
                return Ok(None);
            }
            Expr::Exists { subquery, .. } | Expr::Subquery(subquery) => {
                self.query(subquery)?;
                return Ok(None);
            }
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                self.exprs(sets.iter().flatten())?;
                return Ok(None);
            }
            Expr::Tuple(elements) | Expr::Array(Array { elem: elements, .. }) => {
                self.exprs(elements)?;
                return Ok(None);
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                access_chain.iter().try_for_each(|step| self.access(step))?;
                root
            }
            _ => {
                self.word_syntax(expr)?;
                return Ok(None);
            }
        }))
    }

    /// What SQL writes with words between its operands.
    fn word_syntax(&mut self, expr: &Expr) -> Seen {
        match expr {
            Expr::Case {
                case_token: _,
                end_token: _,
                operand,
                conditions,
                else_result,
            } => {
                if operand.is_some() {
                    self.operators(&["="])?;
                }
                self.exprs(operand.as_deref())?;
                for CaseWhen { condition, result } in conditions {
                    self.expr(condition)?;
                    self.expr(result)?;
                }
                self.exprs(else_result.as_deref())
            }
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                self.expr(expr)?;
                self.exprs(substring_from.as_deref())?;
                self.exprs(substring_for.as_deref())
            }
            Expr::Trim {
                expr,
                trim_where: _,
                trim_what,
                trim_characters,
            } => {
                self.expr(expr)?;
                self.exprs(trim_what.as_deref())?;
                self.exprs(trim_characters.iter().flatten())
            }
            Expr::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                self.expr(expr)?;
                self.expr(overlay_what)?;
                self.expr(overlay_from)?;
                self.exprs(overlay_for.as_deref())
            }
            _ => other_dialect(),
        }
    }

    /// What words stand for. PostgreSQL looks for such an operator along the search path, as for any.
    pub fn operators(&mut self, signs: &[&str]) -> Seen {
        let mut signs = signs.iter();
        signs.try_for_each(|sign| {
            let found = self.rules.operator(sign);
            self.found(found)
        })
    }

    fn in_target(&mut self, target: &InTarget) -> Seen {
        match target {
            InTarget::List(list) => self.exprs(list),
            InTarget::Subquery(query) => self.query(query),
            InTarget::Unnest(expr) => self.expr(expr),
            InTarget::Table { .. } => other_dialect(),
        }
    }

    fn access(&mut self, step: &AccessExpr) -> Seen {
        match step {
            AccessExpr::Dot(expr) => self.expr(expr),
            AccessExpr::Subscript(Subscript::Index { index }) => self.expr(index),
            AccessExpr::Subscript(Subscript::Slice {
                lower_bound,
                upper_bound,
                stride,
            }) => self.exprs([lower_bound, upper_bound, stride].into_iter().flatten()),
        }
    }

    /// A type with modifiers is written like a call: one that has the name of a function which
    /// writes is taken for that function. Types that the parser knows by themselves are mostly
    /// PostgreSQL's own.
    pub fn data_type(&mut self, data_type: &DataType) -> Seen {
        let (name, modifiers) = match data_type {
            DataType::Custom(name, modifiers) => (name, modifiers),
            DataType::Array(
                ArrayElemTypeDef::AngleBracket(element)
                | ArrayElemTypeDef::SquareBracket(element, _)
                | ArrayElemTypeDef::Parenthesis(element),
            ) => return self.data_type(element),
            other => {
                let name = other.to_string().to_ascii_lowercase();
                return match self
                    .rules
                    .catalogue
                    .and_then(|it| it.type_named(None, &name))
                {
                    Some(finding) => self.found(finding.clone()),
                    None => Ok(()),
                };
            }
        };
        let path = path(name)?;
        let name = path.last().map_or("", String::as_str);
        match functions::verdict(name) {
            Some(Verdict::Writes | Verdict::AdvisoryLock | Verdict::Session)
                if !modifiers.is_empty() =>
            {
                Err(format!(
                    "type {name} has the name of a function that writes"
                ))
            }
            _ => {
                let finding = self.rules.type_named(&path);
                self.found(finding)
            }
        }
    }

    fn function(&mut self, function: &Function) -> Seen {
        let Function {
            name,
            uses_odbc_syntax: _,
            parameters,
            args,
            within_group,
            filter,
            null_treatment: _,
            over,
        } = function;
        self.call(name)?;
        self.function_arguments(parameters)?;
        self.function_arguments(args)?;
        self.orders(within_group)?;
        self.exprs(filter.as_deref())?;
        match over {
            Some(WindowType::WindowSpec(spec)) => self.window(spec),
            Some(WindowType::NamedWindow(_)) | None => Ok(()),
        }
    }

    fn function_arguments(&mut self, arguments: &FunctionArguments) -> Seen {
        match arguments {
            FunctionArguments::None => Ok(()),
            FunctionArguments::Subquery(query) => self.query(query),
            FunctionArguments::List(list) => {
                self.arguments(&list.args)?;
                list.clauses.iter().try_for_each(|clause| match clause {
                    FunctionArgumentClause::OrderBy(orders) => self.orders(orders),
                    FunctionArgumentClause::Where(expr) | FunctionArgumentClause::Limit(expr) => {
                        self.expr(expr)
                    }
                    FunctionArgumentClause::IgnoreOrRespectNulls(_)
                    | FunctionArgumentClause::JsonNullClause(_) => Ok(()),
                    FunctionArgumentClause::JsonReturningClause(clause) => {
                        self.data_type(&clause.data_type)
                    }
                    _ => other_dialect(),
                })
            }
        }
    }

    pub fn arguments(&mut self, arguments: &[FunctionArg]) -> Seen {
        arguments.iter().try_for_each(|argument| {
            let value = match argument {
                FunctionArg::Unnamed(value) | FunctionArg::Named { arg: value, .. } => value,
                FunctionArg::ExprNamed { name, arg, .. } => {
                    self.expr(name)?;
                    arg
                }
            };
            match value {
                FunctionArgExpr::Expr(expr) => self.expr(expr),
                FunctionArgExpr::QualifiedWildcard(_) | FunctionArgExpr::Wildcard => Ok(()),
                FunctionArgExpr::WildcardWithOptions(options) => wildcard(options),
            }
        })
    }

    pub fn window(&mut self, window: &WindowSpec) -> Seen {
        let WindowSpec {
            window_name: _,
            partition_by,
            order_by,
            window_frame,
        } = window;
        self.exprs(partition_by)?;
        self.orders(order_by)?;
        let Some(WindowFrame {
            units: _,
            start_bound,
            end_bound,
        }) = window_frame
        else {
            return Ok(());
        };
        let bounds = std::iter::once(start_bound).chain(end_bound);
        bounds.into_iter().try_for_each(|bound| match bound {
            WindowFrameBound::CurrentRow => Ok(()),
            WindowFrameBound::Preceding(distance) | WindowFrameBound::Following(distance) => {
                self.exprs(distance.as_deref())
            }
        })
    }
}
