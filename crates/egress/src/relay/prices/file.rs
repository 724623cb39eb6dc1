//! A price table as it stands in a file.

use serde::Deserialize;

use super::{Line, Pattern, PricesError, Rate, Rates};
use crate::relay::{
    models::MAX_MODEL_BYTES,
    money::{Usd, parse_micro},
};

/// Where a spelling says the model's name.
const MODEL: &str = "{model}";
/// What a provider may take of a price at most, in hundredths: anything more is a mistake of unit.
const MAX_PERCENT: u64 = 1_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    /// For people.
    #[serde(rename = "about", default)]
    _about: Option<String>,
    #[serde(default)]
    web_search: Option<String>,
    #[serde(default)]
    pub(super) inference_geo_percent: Option<u64>,
    #[serde(default)]
    spellings: Vec<Spelling>,
    prices: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ProviderName {
    Anthropic,
    Bedrock,
    Vertex,
}

/// How a provider writes models, and what of their price it takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spelling {
    provider: ProviderName,
    /// Only for this region of it.
    #[serde(default)]
    region: Option<String>,
    patterns: Vec<String>,
    percent: u64,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    models: Vec<String>,
    input: String,
    output: String,
    cache_write_5m: String,
    cache_write_1h: String,
    cache_read: String,
    #[serde(default)]
    long_prompt: Option<LongPrompt>,
    /// Where the price was read.
    source: String,
    /// When.
    as_of: String,
    #[serde(rename = "note", default)]
    _note: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LongPrompt {
    above_tokens: u64,
    input: String,
    output: String,
    cache_write_5m: String,
    cache_write_1h: String,
    cache_read: String,
}

impl File {
    pub(super) fn parse(text: &str) -> Result<Self, PricesError> {
        let file: File = serde_json::from_str(text).map_err(PricesError::Form)?;
        if file
            .inference_geo_percent
            .is_some_and(|percent| !is_percent(percent))
        {
            return Err(entry_error(
                "inferenceGeoPercent",
                "takes less than 100 or more than 1000 hundredths",
            ));
        }
        Ok(file)
    }

    /// Every entry in every spelling of its own and of `others`.
    pub(super) fn lines(&self, others: Option<&File>) -> Result<Vec<Line>, PricesError> {
        let web_search = self
            .web_search
            .as_ref()
            .or_else(|| others?.web_search.as_ref())
            .map_or(Ok(0), |text| amount(text))
            .map(Usd::from_micro)?;
        let inherited = others.map_or(&[][..], |file| &file.spellings);
        let mut lines = Vec::new();
        for entry in &self.prices {
            let rates = entry.rates(web_search)?;
            for spelling in self.spellings.iter().chain(inherited) {
                spelling.check()?;
                lines.extend(
                    entry
                        .models
                        .iter()
                        .flat_map(|model| spelling.lines(model, rates)),
                );
            }
        }
        Ok(lines)
    }
}

impl Spelling {
    fn check(&self) -> Result<(), PricesError> {
        let shown = || self.patterns.join(", ");
        if self.patterns.is_empty() || !self.patterns.iter().all(|pattern| pattern.contains(MODEL))
        {
            return Err(entry_error(
                &shown(),
                "does not say `{model}` in each of its patterns",
            ));
        }
        if !is_percent(self.percent) {
            return Err(entry_error(
                &shown(),
                "takes less than 100 or more than 1000 hundredths",
            ));
        }
        if self.reason.trim().is_empty() {
            return Err(entry_error(&shown(), "has no reason"));
        }
        Ok(())
    }

    fn lines(&self, model: &str, rates: Rates) -> impl Iterator<Item = Line> {
        self.patterns.iter().map(move |pattern| Line {
            pattern: Pattern::new(&pattern.replace(MODEL, model)),
            provider: self.provider,
            region: self.region.clone(),
            rates: rates.scaled(self.percent),
        })
    }
}

impl Entry {
    fn rates(&self, web_search: Usd) -> Result<Rates, PricesError> {
        let refuse = |why| Err(entry_error(&self.models.join(", "), why));
        if self.models.is_empty() {
            return refuse("names no model");
        }
        let fits = |model: &String| (1..=MAX_MODEL_BYTES).contains(&model.len()) && model != "*";
        if !self.models.iter().all(fits) {
            return refuse(
                "names a model that is none, or `*`, which would give every model a price",
            );
        }
        if self.source.trim().is_empty() || self.as_of.trim().is_empty() {
            return refuse("does not say from where and when its prices are (`source`, `asOf`)");
        }
        let usual = Rate {
            input: amount(&self.input)?,
            output: amount(&self.output)?,
            write_5m: amount(&self.cache_write_5m)?,
            write_1h: amount(&self.cache_write_1h)?,
            read: amount(&self.cache_read)?,
        };
        let long = self
            .long_prompt
            .as_ref()
            .map(LongPrompt::rate)
            .transpose()?;
        Ok(Rates {
            usual,
            long,
            web_search,
        })
    }
}

impl LongPrompt {
    fn rate(&self) -> Result<(u64, Rate), PricesError> {
        let rate = Rate {
            input: amount(&self.input)?,
            output: amount(&self.output)?,
            write_5m: amount(&self.cache_write_5m)?,
            write_1h: amount(&self.cache_write_1h)?,
            read: amount(&self.cache_read)?,
        };
        Ok((self.above_tokens, rate))
    }
}

const fn is_percent(percent: u64) -> bool {
    percent >= 100 && percent <= MAX_PERCENT
}

fn amount(text: &str) -> Result<u64, PricesError> {
    parse_micro(text)
        .ok_or_else(|| PricesError::Amount(text.chars().take(MAX_MODEL_BYTES).collect()))
}

fn entry_error(models: &str, why: &'static str) -> PricesError {
    PricesError::Entry {
        models: models.chars().take(MAX_MODEL_BYTES).collect(),
        why,
    }
}
