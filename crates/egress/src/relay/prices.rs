//! What models cost: a table as data (`profiles/prices.json`), and before it an operator's file of the same form.
//!
//! A model that no entry names has no price. Where a budget in dollars is set, it is then not asked at all.

mod file;
mod pattern;

use super::{
    money::Usd,
    provider::{Place, Provider},
    usage::Tokens,
};
use file::File;
use pattern::Pattern;

/// The table that is built in.
const BUILT_IN: &str = include_str!("../../../../profiles/prices.json");

/// Largest file of an operator that is read, bytes. The built-in one has about 6 KiB.
pub const MAX_PRICES_BYTES: usize = 1 << 20;

/// A price table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PricesError {
    /// It is not of the form.
    #[error("it is no price table")]
    Form(#[source] serde_json::Error),
    /// It is larger than [`MAX_PRICES_BYTES`].
    #[error("it is larger than {MAX_PRICES_BYTES} bytes")]
    TooLarge,
    /// An amount is none.
    #[error("`{0}` is not a number of dollars with at most six decimals, as text")]
    Amount(String),
    /// An entry that could mean nothing, or anything.
    #[error("the entry for `{models}` {why}")]
    Entry {
        /// Its models.
        models: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Prices by provider and model.
#[derive(Debug, Clone)]
pub struct Prices {
    /// Tables in the order in which they are looked at.
    tables: Vec<Vec<Line>>,
    /// What an inference in a chosen geography takes of the price.
    geo_percent: u64,
}

/// One way in which one provider writes one model.
#[derive(Debug, Clone)]
struct Line {
    pattern: Pattern,
    provider: file::ProviderName,
    region: Option<String>,
    rates: Rates,
}

/// What one model costs at one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    usual: Rate,
    /// For requests whose whole input is larger than that.
    long: Option<(u64, Rate)>,
    /// One web search of the provider's own.
    web_search: Usd,
}

/// Microdollars for a million tokens, which are picodollars for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    input: u64,
    output: u64,
    write_5m: u64,
    write_1h: u64,
    read: u64,
}

impl Prices {
    /// The built-in table, after the one of an operator if there is one.
    ///
    /// # Errors
    /// When the operator's cannot be used. The built-in one can; a test reads it.
    pub fn new(operators: Option<&str>) -> Result<Self, PricesError> {
        let built_in = File::parse(BUILT_IN)?;
        let mut tables = Vec::new();
        let mut geo_percent = built_in.inference_geo_percent;
        if let Some(text) = operators {
            if text.len() > MAX_PRICES_BYTES {
                return Err(PricesError::TooLarge);
            }
            let own = File::parse(text)?;
            geo_percent = own.inference_geo_percent.or(geo_percent);
            tables.push(own.lines(Some(&built_in))?);
        }
        tables.push(built_in.lines(None)?);
        Ok(Prices {
            tables,
            geo_percent: geo_percent.unwrap_or(100),
        })
    }

    /// What this model costs there; `None`: nobody has said.
    pub(crate) fn of(
        &self,
        provider: &Provider,
        model: &str,
        in_chosen_geo: bool,
    ) -> Option<Rates> {
        let (name, region) = match &provider.place {
            Place::FirstParty => (file::ProviderName::Anthropic, None),
            Place::Bedrock { region } => (file::ProviderName::Bedrock, Some(region.as_str())),
            Place::Vertex { region, .. } => (file::ProviderName::Vertex, Some(region.as_str())),
        };
        let rates = self.tables.iter().find_map(|lines| {
            lines
                .iter()
                .filter(|line| line.provider == name)
                .filter(|line| line.region.is_none() || line.region.as_deref() == region)
                .filter(|line| line.pattern.matches(model))
                // Of equals the first one: `max_by_key` alone would take the last.
                .rev()
                .max_by_key(|line| (line.pattern.letters(), line.region.is_some()))
                .map(|line| line.rates)
        })?;
        Some(match in_chosen_geo {
            true => rates.scaled(self.geo_percent),
            false => rates,
        })
    }
}

impl Rates {
    /// What a request with these tokens costs.
    pub(crate) fn cost(&self, tokens: &Tokens, web_searches: u64) -> Usd {
        let prompt = tokens.total().saturating_sub(tokens.output);
        let rate = match &self.long {
            Some((above, long)) if prompt > *above => long,
            Some(_) | None => &self.usual,
        };
        let written_5m = tokens
            .cache_creation
            .saturating_sub(tokens.cache_creation_1h);
        let pico = [
            (tokens.input, rate.input),
            (tokens.output, rate.output),
            (written_5m, rate.write_5m),
            (
                tokens.cache_creation_1h.min(tokens.cache_creation),
                rate.write_1h,
            ),
            (tokens.cache_read, rate.read),
            (web_searches, self.web_search.pico()),
        ]
        .into_iter()
        .map(|(count, price)| count.saturating_mul(price))
        .fold(0, u64::saturating_add);
        Usd::from_pico(pico)
    }

    /// What a request may cost, before anything is known but how long it is and how much it may say: the dearest kind of
    /// input is assumed.
    pub(crate) fn ceiling(&self, input: u64, output: u64) -> Usd {
        let rate = match &self.long {
            Some((above, long)) if input > *above => long,
            Some(_) | None => &self.usual,
        };
        let dearest = rate.input.max(rate.write_5m).max(rate.write_1h);
        let pico = input
            .saturating_mul(dearest)
            .saturating_add(output.saturating_mul(rate.output));
        Usd::from_pico(pico)
    }

    fn scaled(self, percent: u64) -> Self {
        Rates {
            usual: self.usual.scaled(percent),
            long: self.long.map(|(above, rate)| (above, rate.scaled(percent))),
            web_search: self.web_search,
        }
    }
}

impl Rate {
    /// Rounded up: a budget is never charged less than the price.
    const fn scaled(self, percent: u64) -> Self {
        const fn part(price: u64, percent: u64) -> u64 {
            price.saturating_mul(percent).div_ceil(100)
        }
        Rate {
            input: part(self.input, percent),
            output: part(self.output, percent),
            write_5m: part(self.write_5m, percent),
            write_1h: part(self.write_1h, percent),
            read: part(self.read, percent),
        }
    }
}

#[cfg(test)]
mod tests;
