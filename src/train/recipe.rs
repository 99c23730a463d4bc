//! Recipes: how an adapter is trained, as a file. Unknown keys are refused.

use std::collections::BTreeMap;
use std::path::Path;

use models::lora::{LoraConfig, Module};
use models::optim::Schedule;
use serde::{Deserialize, Serialize};

use crate::error::{AppError, Kind};

/// Recipes that ship with the program.
const SHIPPED: [(&str, &str); 2] = [
    ("paper", include_str!("recipes/paper.toml")),
    ("fledgling", include_str!("recipes/fledgling.toml")),
];

/// How an adapter is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name.
    pub name: String,
    /// What it was taken from and what was scaled.
    pub about: String,
    /// Rank of the update.
    pub r: usize,
    /// Its scale is alpha / r.
    pub alpha: f64,
    /// Dropout of the update's input, rounded to 1/256.
    pub dropout: f64,
    /// Modules that are adapted. Where the model holds q, k and v in one module, all three mean it,
    /// and so with gate and up.
    pub modules: Vec<Module>,
    /// The scale is alpha / sqrt(r) instead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rslora: bool,
    /// Ranks of modules that have another than `r`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ranks: BTreeMap<Module, usize>,
    /// Alphas of modules that have another than `alpha`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alphas: BTreeMap<Module, f64>,
    /// Learning rates that are tried for `pilot_epochs`; the one with the lowest dev loss is taken.
    pub rates: Vec<f64>,
    /// Epochs of each trial. Nothing is tried where there is one rate.
    pub pilot_epochs: u64,
    /// Epochs at most; the one with the lowest dev loss is taken.
    pub epochs: u64,
    /// Epochs without a lower dev loss after which training stops; none where all are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    /// Shape of the rate.
    pub schedule: Schedule,
    /// Share of the steps that warm up.
    pub warmup: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Most that the gradient's norm may be.
    pub clip: f64,
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Micro-batches of a step.
    pub accumulate: usize,
    /// Most tokens in a row; answers are cut there, and every cut row is listed.
    pub max_tokens: usize,
    /// Seed of initial values, order and dropout, in decimal.
    pub seed: String,
}

impl Recipe {
    /// Reads a recipe by name or file.
    ///
    /// # Errors
    /// When there is none, or it has an unknown key or a value that makes no sense.
    pub fn find(name: &str) -> Result<Self, AppError> {
        if let Some((_, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let path = Path::new(name);
        if !path.exists() {
            let known = SHIPPED.map(|(known, _)| known).join(", ");
            return Err(AppError::hinted(
                Kind::NotFound,
                format!("no recipe {name:?}"),
                format!("name a file, or one of: {known}"),
            ));
        }
        let text = std::fs::read_to_string(path).map_err(AppError::file(path))?;
        Self::parse(name, &text)
    }

    /// Reads a recipe's text.
    ///
    /// # Errors
    /// When it has an unknown key or a value that makes no sense.
    pub fn parse(name: &str, text: &str) -> Result<Self, AppError> {
        let wrong = |what: String| {
            AppError::hinted(
                Kind::Usage,
                format!("recipe {name}: {what}"),
                "`ledger train --help` names the recipes that ship; copy one as a start",
            )
        };
        let recipe: Self = toml::from_str(text).map_err(|e| {
            let place = e.span().map(|span| text[..span.start].lines().count().max(1));
            let line = place.map_or(String::new(), |line| format!("line {line}: "));
            wrong(format!("{line}{}", e.message()))
        })?;
        recipe.check().map_err(wrong)?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), String> {
        let positive = [
            ("r", self.r as f64),
            ("alpha", self.alpha),
            ("epochs", self.epochs as f64),
            ("batch", self.batch as f64),
            ("accumulate", self.accumulate as f64),
            ("max_tokens", self.max_tokens as f64),
            ("clip", self.clip),
        ];
        for (key, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("{key} is {value}: it must be positive"));
            }
        }
        for (key, value) in [("dropout", self.dropout), ("warmup", self.warmup)] {
            if !(0.0..1.0).contains(&value) {
                return Err(format!("{key} is {value}: it must lie from 0 to below 1"));
            }
        }
        if self.rates.is_empty() || self.rates.iter().any(|rate| !(rate.is_finite() && *rate > 0.0))
        {
            return Err("rates must name at least one positive rate".to_owned());
        }
        if self.rates.len() > 1 && self.pilot_epochs == 0 {
            return Err("several rates need pilot_epochs to choose among them".to_owned());
        }
        if self.modules.is_empty() {
            return Err("modules names no module".to_owned());
        }
        if self.patience == Some(0) {
            return Err("patience is 0: it must be an epoch at least".to_owned());
        }
        let zero = self.ranks.iter().find(|(_, rank)| **rank == 0);
        if let Some((module, _)) = zero {
            return Err(format!("ranks gives {} the rank 0", module.name()));
        }
        let alphas = self.alphas.values();
        if let Some(alpha) = alphas.into_iter().find(|alpha| !(alpha.is_finite() && **alpha > 0.0))
        {
            return Err(format!("alphas holds {alpha}: it must be positive"));
        }
        self.seed
            .parse::<u64>()
            .map(|_| ())
            .map_err(|_| format!("seed {:?} is no number", self.seed))
    }

    /// Returns the shape of the adapter.
    pub fn lora(&self) -> LoraConfig {
        LoraConfig {
            r: self.r,
            alpha: self.alpha,
            dropout: self.dropout,
            modules: self.modules.clone(),
            rslora: self.rslora,
            ranks: self.ranks.clone(),
            alphas: self.alphas.clone(),
        }
    }

    /// Returns the seed as a number.
    pub fn seed_number(&self) -> u64 {
        self.seed.parse().unwrap_or_default()
    }

    /// Returns the recipe with one rate and a number of epochs.
    #[must_use]
    pub fn with(&self, rate: f64, epochs: u64) -> Self {
        Self { rates: vec![rate], pilot_epochs: 0, epochs, ..self.clone() }
    }

    /// Sets a field by name, as `seed=8` or `rates=[0.001]`.
    ///
    /// # Errors
    /// When there is no such field or the value is not of its kind.
    pub fn set(&self, change: &str) -> Result<Self, AppError> {
        let wrong = |what: String| AppError::said(Kind::Usage, format!("--set {change}: {what}"));
        let Some((key, value)) = change.split_once('=') else {
            return Err(wrong("write it as field=value".to_owned()));
        };
        let mut fields = serde_json::to_value(self)?;
        // Fields that may be left out are not among those that are written.
        let optional = ["rslora", "ranks", "alphas", "patience"];
        let old = fields.get(key).cloned();
        if old.is_none() && !optional.contains(&key) {
            return Err(wrong(format!("a recipe has no field {key:?}")));
        }
        let new = if old.is_some_and(|old| old.is_string()) {
            serde_json::Value::String(value.to_owned())
        } else {
            serde_json::from_str(value).map_err(|e| wrong(e.to_string()))?
        };
        fields[key] = new;
        let changed: Self = serde_json::from_value(fields).map_err(|e| wrong(e.to_string()))?;
        changed.check().map_err(wrong)?;
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shipped_recipes_are_whole() {
        for (name, _) in SHIPPED {
            assert_eq!(Recipe::find(name).unwrap().name, name);
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let text = include_str!("recipes/paper.toml").replace("dropout", "droput");
        let error = Recipe::parse("x.toml", &text).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        let said = error.to_string();
        assert!(said.contains("droput") && said.contains("line "), "{said}");
    }

    #[test]
    fn fields_can_be_set() {
        let recipe = Recipe::find("paper").unwrap();
        assert_eq!(recipe.set("seed=8").unwrap().seed, "8");
        assert_eq!(recipe.set("epochs=1").unwrap().epochs, 1);
        assert!(recipe.set("speed=1").is_err());
        assert!(recipe.set("epochs=0").is_err());
    }
}
