//! What was used of model providers: by each session, and by each caller day by day (UTC). Amounts are added, never set, so
//! that whoever writes need not know what stands there.

use model::SessionId;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, named_params};

use crate::{
    Store, StoreError,
    error::failed_to,
    rows::{self, number},
};

/// Days of callers that are remembered.
pub const USAGE_DAYS_KEPT: u64 = 92;

const ADD_TO_SESSION: &str = "
INSERT INTO session_usage (session, requests, denied, unpriced, input_tokens, output_tokens, cache_read_tokens,
    cache_write_tokens, cache_write_1h_tokens, cost_pico_usd, bytes_up, bytes_down)
SELECT :key, :requests, :denied, :unpriced, :input_tokens, :output_tokens, :cache_read_tokens, :cache_write_tokens,
    :cache_write_1h_tokens, :cost_pico_usd, :bytes_up, :bytes_down
WHERE EXISTS (SELECT 1 FROM sessions WHERE id = :key)";

const ADD_TO_DAY: &str = "
INSERT INTO daily_usage (day, caller, requests, denied, unpriced, input_tokens, output_tokens, cache_read_tokens,
    cache_write_tokens, cache_write_1h_tokens, cost_pico_usd, bytes_up, bytes_down)
SELECT :day, :key, :requests, :denied, :unpriced, :input_tokens, :output_tokens, :cache_read_tokens, :cache_write_tokens,
    :cache_write_1h_tokens, :cost_pico_usd, :bytes_up, :bytes_down WHERE true";

/// A sum that the database cannot hold stays at the largest that it can.
const SUMS: &str = "
    requests = MIN(requests + excluded.requests, 9223372036854775807),
    denied = MIN(denied + excluded.denied, 9223372036854775807),
    unpriced = MIN(unpriced + excluded.unpriced, 9223372036854775807),
    input_tokens = MIN(input_tokens + excluded.input_tokens, 9223372036854775807),
    output_tokens = MIN(output_tokens + excluded.output_tokens, 9223372036854775807),
    cache_read_tokens = MIN(cache_read_tokens + excluded.cache_read_tokens, 9223372036854775807),
    cache_write_tokens = MIN(cache_write_tokens + excluded.cache_write_tokens, 9223372036854775807),
    cache_write_1h_tokens = MIN(cache_write_1h_tokens + excluded.cache_write_1h_tokens, 9223372036854775807),
    cost_pico_usd = MIN(cost_pico_usd + excluded.cost_pico_usd, 9223372036854775807),
    bytes_up = MIN(bytes_up + excluded.bytes_up, 9223372036854775807),
    bytes_down = MIN(bytes_down + excluded.bytes_down, 9223372036854775807)";

/// Amounts of what was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageRecord {
    /// Requests that went on to the provider.
    pub requests: u64,
    /// Requests that were refused.
    pub denied: u64,
    /// Of those that went on, how many have no known price.
    pub unpriced: u64,
    /// Input that no cache had, tokens.
    pub input_tokens: u64,
    /// Output, tokens.
    pub output_tokens: u64,
    /// Input read from a cache, tokens.
    pub cache_read_tokens: u64,
    /// Input written to a cache, tokens.
    pub cache_write_tokens: u64,
    /// Of that, what stays there for an hour.
    pub cache_write_1h_tokens: u64,
    /// What they cost, picodollars.
    pub cost_pico_usd: u64,
    /// Bytes of bodies that went to the provider.
    pub bytes_up: u64,
    /// Bytes of bodies that came back.
    pub bytes_down: u64,
}

/// What a caller used on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayRecord {
    /// Days since 1970-01-01 UTC.
    pub day: u64,
    /// [`model::Principal::name`] of the caller.
    pub caller: String,
    /// How much.
    pub usage: UsageRecord,
}

impl Store {
    /// Adds what was used, all in one transaction. What a session used that is forgotten already is left out; of its caller's
    /// day it counts.
    ///
    /// # Errors
    /// When the database fails; nothing is added then.
    pub fn add_usage(
        &self,
        sessions: &[(SessionId, UsageRecord)],
        days: &[DayRecord],
    ) -> Result<(), StoreError> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed_to("begin to add usage"))?;
        for (session, usage) in sessions {
            let sql = format!("{ADD_TO_SESSION} ON CONFLICT (session) DO UPDATE SET {SUMS}");
            add(&transaction, &sql, None, &session.to_string(), usage)?;
        }
        for day in days {
            let sql = format!("{ADD_TO_DAY} ON CONFLICT (day, caller) DO UPDATE SET {SUMS}");
            add(&transaction, &sql, Some(day.day), &day.caller, &day.usage)?;
        }
        transaction.commit().map_err(failed_to("add usage"))
    }

    /// What a session has used; nothing where nothing is on record.
    ///
    /// # Errors
    /// When the database fails.
    pub fn session_usage(&self, session: SessionId) -> Result<UsageRecord, StoreError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT * FROM session_usage WHERE session = ?1")
            .map_err(failed_to("read usage"))?;
        let found = statement
            .query_row([session.to_string()], |row| Ok(usage(row)))
            .optional()
            .map_err(failed_to("read usage"))?;
        found.unwrap_or_else(|| Ok(UsageRecord::default()))
    }

    /// What callers used on this day and later ones.
    ///
    /// # Errors
    /// When the database fails.
    pub fn daily_usage_since(&self, day: u64) -> Result<Vec<DayRecord>, StoreError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT * FROM daily_usage WHERE day >= ?1 ORDER BY day, caller")
            .map_err(failed_to("read usage"))?;
        let mut found = statement
            .query([number("day", day)?])
            .map_err(failed_to("read usage"))?;
        let mut days = Vec::new();
        while let Some(row) = found.next().map_err(failed_to("read usage"))? {
            days.push(DayRecord {
                day: rows::unsigned(row, "day")?,
                caller: rows::get(row, "caller")?,
                usage: usage(row)?,
            });
        }
        Ok(days)
    }

    /// Forgets days before this one.
    ///
    /// # Errors
    /// When the database fails.
    pub fn purge_usage_before(&self, day: u64) -> Result<u64, StoreError> {
        let removed = self
            .connection()
            .execute(
                "DELETE FROM daily_usage WHERE day < ?1",
                [number("day", day)?],
            )
            .map_err(failed_to("purge usage"))?;
        Ok(removed as u64)
    }
}

fn add(
    connection: &Connection,
    sql: &str,
    day: Option<u64>,
    key: &str,
    usage: &UsageRecord,
) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare_cached(sql)
        .map_err(failed_to("add usage"))?;
    let amounts = named_params! {
        ":key": key,
        ":requests": amount(usage.requests),
        ":denied": amount(usage.denied),
        ":unpriced": amount(usage.unpriced),
        ":input_tokens": amount(usage.input_tokens),
        ":output_tokens": amount(usage.output_tokens),
        ":cache_read_tokens": amount(usage.cache_read_tokens),
        ":cache_write_tokens": amount(usage.cache_write_tokens),
        ":cache_write_1h_tokens": amount(usage.cache_write_1h_tokens),
        ":cost_pico_usd": amount(usage.cost_pico_usd),
        ":bytes_up": amount(usage.bytes_up),
        ":bytes_down": amount(usage.bytes_down),
    };
    let day = day.map(|day| number("day", day)).transpose()?;
    let with_day = day
        .as_ref()
        .map(|day| (":day", day as &dyn rusqlite::ToSql));
    let parameters: Vec<_> = amounts.iter().copied().chain(with_day).collect();
    statement
        .execute(parameters.as_slice())
        .map_err(failed_to("add usage"))?;
    Ok(())
}

/// An amount for the database: beyond what it can hold, the largest that it can.
fn amount(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn usage(row: &Row<'_>) -> Result<UsageRecord, StoreError> {
    let read = |column| rows::unsigned(row, column);
    Ok(UsageRecord {
        requests: read("requests")?,
        denied: read("denied")?,
        unpriced: read("unpriced")?,
        input_tokens: read("input_tokens")?,
        output_tokens: read("output_tokens")?,
        cache_read_tokens: read("cache_read_tokens")?,
        cache_write_tokens: read("cache_write_tokens")?,
        cache_write_1h_tokens: read("cache_write_1h_tokens")?,
        cost_pico_usd: read("cost_pico_usd")?,
        bytes_up: read("bytes_up")?,
        bytes_down: read("bytes_down")?,
    })
}
