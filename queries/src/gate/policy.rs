//! Policies: the rules that a deployment must pass, as a TOML file.

use std::fmt;

use serde::Deserialize;

use crate::report::ReadingKind;

/// Version of the policy form.
const POLICY_SCHEMA: u32 = 1;

/// Policies that ship with the program, by name.
const SHIPPED: [(&str, &str); 2] = [
    ("canary", include_str!("../../saved/canary.toml")),
    ("champion", include_str!("../../saved/champion.toml")),
];

/// A set of rules; what passes them all may be given the alias.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Version of this form.
    pub schema: u32,
    /// Its name.
    pub name: String,
    /// Alias that a PASS may be promoted to.
    pub alias: String,
    /// The rules, in the order of the verdict's table.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// A metric of the candidate reaches a figure. Its point estimate decides.
    Threshold {
        /// Name of the rule.
        name: String,
        /// Metric.
        metric: String,
        /// Reading.
        reading: ReadingKind,
        /// Stratum, or `all`.
        stratum: String,
        /// Least value that passes.
        at_least: f64,
    },
    /// The candidate beats the better of the named arms in an exact McNemar test.
    Superiority {
        /// Name of the rule.
        name: String,
        /// Yes-or-no metric: `exact`, `name` or `valid`.
        metric: String,
        /// Reading.
        reading: ReadingKind,
        /// Stratum, or `all`.
        stratum: String,
        /// Labels of the arms.
        against: Vec<String>,
        /// The two-sided p-value must lie below it.
        alpha: f64,
    },
    /// The candidate is not shown to be worse than an arm. That is less than shown to be as good:
    /// few cases show little.
    NotWorse {
        /// Name of the rule.
        name: String,
        /// Yes-or-no metric: `exact`, `name` or `valid`.
        metric: String,
        /// Reading.
        reading: ReadingKind,
        /// Stratum, or `all`.
        stratum: String,
        /// Label of the arm.
        against: String,
        /// Worse is shown by a two-sided p-value below it.
        alpha: f64,
    },
    /// The candidate is shown to be no more than a margin worse than an arm.
    NonInferiority {
        /// Name of the rule.
        name: String,
        /// Yes-or-no metric: `exact`, `name` or `valid`.
        metric: String,
        /// Reading.
        reading: ReadingKind,
        /// Stratum, or `all`.
        stratum: String,
        /// Label of the arm.
        against: String,
        /// How much worse is still acceptable.
        margin: f64,
        /// Confidence of the two-sided interval.
        confidence: f64,
    },
}

/// Says why a text is no policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The text does not have the form.
    #[error("policy is malformed: {0}")]
    Form(String),
    /// The policy was written for another version.
    #[error("policy {name} has schema {found}, not {POLICY_SCHEMA}")]
    Schema {
        /// Its name.
        name: String,
        /// Its schema.
        found: u32,
    },
    /// The policy asks nothing, so everything would pass.
    #[error("policy {0} has no rules, so everything would pass it")]
    Empty(String),
    /// A rule cannot be right.
    #[error("rule {rule} of policy {policy}: {why}")]
    Rule {
        /// Name of the policy.
        policy: String,
        /// Name of the rule.
        rule: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl Policy {
    /// Returns the text of a policy that ships with the program.
    pub fn shipped(name: &str) -> Option<&'static str> {
        SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// Lists the names of the policies that ship with the program.
    pub fn shipped_names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }

    /// Reads a policy. Unknown keys are refused.
    ///
    /// # Errors
    /// When the text does not have the form, or a rule cannot be right.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Self =
            toml::from_str(text).map_err(|error| PolicyError::Form(one_line(&error)))?;
        if policy.schema != POLICY_SCHEMA {
            return Err(PolicyError::Schema { name: policy.name, found: policy.schema });
        }
        if policy.rules.is_empty() {
            return Err(PolicyError::Empty(policy.name));
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let twice =
                policy.rules.iter().take(index).any(|earlier| earlier.name() == rule.name());
            let wrong =
                if twice { Some("another rule has this name") } else { rule.what_is_wrong() };
            if let Some(why) = wrong {
                let (policy, rule) = (policy.name.clone(), rule.name().to_owned());
                return Err(PolicyError::Rule { policy, rule, why });
            }
        }
        Ok(policy)
    }
}

fn one_line(error: &toml::de::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Rule {
    /// Returns the rule's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Threshold { name, .. }
            | Self::Superiority { name, .. }
            | Self::NotWorse { name, .. }
            | Self::NonInferiority { name, .. } => name,
        }
    }

    /// Lists the labels of the arms that the rule compares with.
    pub fn against(&self) -> &[String] {
        match self {
            Self::Threshold { .. } => &[],
            Self::Superiority { against, .. } => against,
            Self::NotWorse { against, .. } | Self::NonInferiority { against, .. } => {
                std::slice::from_ref(against)
            }
        }
    }

    fn what_is_wrong(&self) -> Option<&'static str> {
        let share = |value: f64| value > 0.0 && value < 1.0;
        match self {
            Self::Threshold { at_least, .. } if !at_least.is_finite() => {
                Some("at_least is not a number")
            }
            Self::Superiority { against, .. } if against.is_empty() => Some("against is empty"),
            Self::Superiority { alpha, .. } | Self::NotWorse { alpha, .. } if !share(*alpha) => {
                Some("alpha does not lie between 0 and 1")
            }
            Self::NonInferiority { confidence, .. } if !share(*confidence) => {
                Some("confidence does not lie between 0 and 1")
            }
            Self::NonInferiority { margin, .. } if !share(*margin) => {
                Some("margin does not lie between 0 and 1")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threshold { metric, reading, stratum, at_least, .. } => {
                let reading = reading.name();
                write!(f, "Is {metric} ({reading}, {stratum}) at least {at_least}?")
            }
            Self::Superiority { metric, reading, stratum, against, alpha, .. } => {
                let (reading, arms) = (reading.name(), against.join(" and "));
                let better = if against.len() > 1 { "the better of " } else { "" };
                write!(f, "Does {metric} ({reading}, {stratum}) beat {better}{arms}, ")?;
                write!(f, "exact McNemar p < {alpha}?")
            }
            Self::NotWorse { metric, reading, stratum, against, alpha, .. } => {
                let reading = reading.name();
                write!(f, "Is {metric} ({reading}, {stratum}) not shown to be worse than ")?;
                write!(f, "{against} (exact McNemar p < {alpha})?")
            }
            Self::NonInferiority {
                metric, reading, stratum, against, margin, confidence, ..
            } => {
                let reading = reading.name();
                write!(
                    f,
                    "Is {metric} ({reading}, {stratum}) shown to be at most {margin} worse "
                )?;
                write!(f, "than {against} ({:.0} % interval)?", confidence * 100.0)
            }
        }
    }
}
