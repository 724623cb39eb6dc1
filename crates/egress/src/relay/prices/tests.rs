#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn first_party() -> Provider {
    Provider::first_party(None).unwrap()
}

fn built_in() -> Prices {
    Prices::new(None).unwrap()
}

/// What a million of each kind costs, in microdollars: input, output, 5 minutes, 1 hour, read.
fn million(rates: Rates) -> [u64; 5] {
    let one = |tokens| rates.cost(&tokens, 0).micro_rounded_up();
    let none = Tokens::default();
    const M: u64 = 1_000_000;
    // Small enough to be no long prompt, for the input kinds.
    let thousandth = |tokens| one(tokens) * 1000;
    [
        thousandth(Tokens {
            input: M / 1000,
            ..none
        }),
        one(Tokens { output: M, ..none }),
        thousandth(Tokens {
            cache_creation: M / 1000,
            ..none
        }),
        thousandth(Tokens {
            cache_creation: M / 1000,
            cache_creation_1h: M / 1000,
            ..none
        }),
        thousandth(Tokens {
            cache_read: M / 1000,
            ..none
        }),
    ]
}

#[test]
fn models_have_the_listed_price_whichever_way_they_are_written() {
    let prices = built_in();
    let bedrock = Provider::bedrock("us-east-1", None).unwrap();
    let everywhere = Provider::vertex("p", "global", None).unwrap();
    let somewhere = Provider::vertex("p", "us-east5", None).unwrap();
    let opus = [4_000_000, 20_000_000, 5_000_000, 8_000_000, 200_000];
    let dearer = [4_400_000, 22_000_000, 5_500_000, 8_800_000, 220_000];
    for (provider, model, expected) in [
        (&first_party(), "claude-opus-5-5", opus),
        (&first_party(), "claude-opus-5-5-20260901", opus),
        (&bedrock, "global.anthropic.claude-opus-5-5", opus),
        (&bedrock, "us.anthropic.claude-opus-5-5", dearer),
        (&bedrock, "anthropic.claude-opus-5-5-20260901-v1:0", dearer),
        (&bedrock, "eu.anthropic.claude-opus-5-5-v1", dearer),
        (
            &bedrock,
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-5-5",
            dearer,
        ),
        (
            &bedrock,
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.anthropic.claude-opus-5-5",
            opus,
        ),
        (&everywhere, "claude-opus-5-5@20260901", opus),
        (&somewhere, "claude-opus-5-5@20260901", dearer),
        (&somewhere, "claude-opus-5-5", dearer),
        (
            &first_party(),
            "claude-opus-5",
            [5_000_000, 25_000_000, 6_250_000, 10_000_000, 500_000],
        ),
        (
            &first_party(),
            "claude-haiku-4-5-20251001",
            [1_000_000, 5_000_000, 1_250_000, 2_000_000, 100_000],
        ),
    ] {
        assert_eq!(
            prices.of(provider, model, false).map(million),
            Some(expected),
            "{model}"
        );
    }
    assert_eq!(
        prices
            .of(&first_party(), "claude-opus-5-5", true)
            .map(million),
        Some(dearer),
        "inference in a chosen geography"
    );
}

#[test]
fn what_nobody_has_priced_has_no_price() {
    let prices = built_in();
    let bedrock = Provider::bedrock("us-east-1", None).unwrap();
    for (provider, model) in [
        (&first_party(), "claude-opus-5-9"),
        (&first_party(), "claude-opus-6"),
        (&first_party(), "claude-opus"),
        (&first_party(), ""),
        (&first_party(), "xclaude-opus-5-5"),
        (&first_party(), "us.anthropic.claude-opus-5-5"),
        (&bedrock, "claude-opus-5-5"),
        (
            &bedrock,
            "arn:aws:bedrock:us-east-1:123:application-inference-profile/abc123",
        ),
    ] {
        assert_eq!(prices.of(provider, model, false), None, "{model}");
    }
}

#[test]
fn a_long_prompt_is_dearer_as_a_whole() {
    let rates = built_in()
        .of(&first_party(), "claude-haiku-5-5", false)
        .unwrap();
    let at = |input, cache_read| {
        rates.cost(
            &Tokens {
                input,
                cache_read,
                output: 1_000,
                ..Tokens::default()
            },
            0,
        )
    };
    assert_eq!(at(100_000, 0).pico(), 100_000 * 100_000 + 1_000 * 500_000);
    assert_eq!(at(100_001, 0).pico(), 100_001 * 500_000 + 1_000 * 2_500_000);
    assert_eq!(
        at(1, 100_000).pico(),
        500_000 + 100_000 * 50_000 + 1_000 * 2_500_000
    );
}

#[test]
fn a_search_costs_beside_its_tokens() {
    let rates = built_in()
        .of(&first_party(), "claude-opus-5-5", false)
        .unwrap();
    assert_eq!(rates.cost(&Tokens::default(), 3), Usd::from_micro(30_000));
}

const OWN: &str = r#"{"prices":[{"models":["gateway-*","claude-opus-5-5"],"input":"1","output":"2","cacheWrite5m":"3","cacheWrite1h":"4","cacheRead":"0.5","source":"contract","asOf":"2026-11-01"}]}"#;

#[test]
fn an_operators_table_is_looked_at_first() {
    let prices = Prices::new(Some(OWN)).unwrap();
    let own = Some([1_000_000, 2_000_000, 3_000_000, 4_000_000, 500_000]);
    for model in [
        "gateway-large",
        "claude-opus-5-5",
        "claude-opus-5-5-20260901",
    ] {
        assert_eq!(
            prices.of(&first_party(), model, false).map(million),
            own,
            "{model}"
        );
    }
    let built_in = prices
        .of(&first_party(), "claude-sonnet-5-5", false)
        .map(million);
    assert_eq!(built_in.unwrap()[0], 2_000_000);
    assert_eq!(prices.of(&first_party(), "other", false), None);
}

#[test]
fn a_table_that_cannot_be_meant_is_refused() {
    assert!(Prices::new(Some(OWN)).is_ok());
    for (from, to) in [
        (r#""input":"1""#, r#""input":1"#),
        (r#""input":"1""#, r#""input":"-1""#),
        (r#""input":"1""#, r#""input":"0.0000001""#),
        (r#""input":"1","#, ""),
        (r#""source":"contract""#, r#""source":"""#),
        (r#""gateway-*""#, r#""*""#),
        (r#""gateway-*""#, r#""""#),
        (r#""models""#, r#""Models""#),
        (r#"{"prices""#, r#"{"inferenceGeoPercent":50,"prices""#),
        (
            r#"{"prices""#,
            r#"{"spellings":[{"provider":"bedrock","patterns":["x"],"percent":100,"reason":"y"}],"prices""#,
        ),
        (
            r#"{"prices""#,
            r#"{"spellings":[{"provider":"bedrock","patterns":["{model}"],"percent":10,"reason":"y"}],"prices""#,
        ),
    ] {
        let text = OWN.replacen(from, to, 1);
        assert_ne!(text, OWN, "the test changes nothing: {from}");
        assert!(Prices::new(Some(&text)).is_err(), "{text}");
    }
    assert!(matches!(
        Prices::new(Some(&" ".repeat(MAX_PRICES_BYTES + 1))),
        Err(PricesError::TooLarge)
    ));
}

#[test]
fn each_model_has_one_price_in_the_built_in_table() {
    let table: serde_json::Value = serde_json::from_str(BUILT_IN).unwrap();
    let mut seen = BTreeSet::new();
    for entry in table["prices"].as_array().unwrap() {
        assert!(
            entry["source"].as_str().unwrap().starts_with("https://"),
            "{entry}"
        );
        let date = entry["asOf"].as_str().unwrap();
        assert!(date.len() == 10 && date.starts_with("20"), "{date}");
        for model in entry["models"].as_array().unwrap() {
            let model = model.as_str().unwrap();
            assert!(
                !model.contains('*'),
                "{model}: a family has no price of its own"
            );
            assert!(seen.insert(model.to_owned()), "{model} twice");
        }
    }
}

fn tokens() -> impl Strategy<Value = Tokens> {
    let count = 0..5_000_000_u64;
    (
        count.clone(),
        count.clone(),
        count.clone(),
        count.clone(),
        count,
    )
        .prop_map(|(input, output, cache_read, creation, hour)| Tokens {
            input,
            output,
            cache_read,
            cache_creation: creation,
            cache_creation_1h: hour.min(creation),
        })
}

proptest! {
    #[test]
    fn cost_is_exact_grows_with_each_kind_and_is_never_above_the_ceiling(tokens in tokens(), searches in 0..50_u64) {
        let rates = built_in().of(&first_party(), "claude-opus-5-5", false).unwrap();
        let cost = rates.cost(&tokens, searches);
        let five = tokens.cache_creation - tokens.cache_creation_1h;
        let exact = u128::from(tokens.input) * 4_000_000
            + u128::from(tokens.output) * 20_000_000
            + u128::from(five) * 5_000_000
            + u128::from(tokens.cache_creation_1h) * 8_000_000
            + u128::from(tokens.cache_read) * 200_000
            + u128::from(searches) * 10_000_000_000;
        prop_assert_eq!(u128::from(cost.pico()), exact);
        let more = Tokens { output: tokens.output + 1, ..tokens };
        prop_assert!(rates.cost(&more, searches) > cost);
        let prompt = tokens.total() - tokens.output;
        prop_assert!(rates.cost(&tokens, 0) <= rates.ceiling(prompt, tokens.output));
    }

    #[test]
    fn no_number_of_tokens_makes_a_cost_small_again(tokens in any::<[u64; 4]>()) {
        let [input, output, cache_read, cache_creation] = tokens;
        let tokens = Tokens { input, output, cache_read, cache_creation, cache_creation_1h: 0 };
        let rates = built_in().of(&first_party(), "claude-opus-5-5", false).unwrap();
        let exact = u128::from(input) * 4_000_000 + u128::from(output) * 20_000_000
            + u128::from(cache_creation) * 5_000_000 + u128::from(cache_read) * 200_000;
        let expected = u64::try_from(exact).unwrap_or(u64::MAX);
        prop_assert_eq!(rates.cost(&tokens, 0).pico(), expected);
    }
}
