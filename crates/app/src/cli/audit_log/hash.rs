//! `audit hash`, and how a search finds a caller.

use std::io::{self, Read};

use audit::{IdentityKey, identity_hash};

use super::{super::EXIT_OK, CliError, Context};

/// Longest text that is read from standard input, bytes.
const MAX_INPUT_BYTES: u64 = 4096;
/// How the text of an API key begins; its id stands up to the next underscore.
const KEY_PREFIX: &str = "ccmcp_";

pub(super) fn run(context: &Context, identity: &str) -> Result<u8, CliError> {
    let name = name(identity)?;
    let tag = tag(context, &name)?;
    if context.output.json {
        // A name is no secret; of a key it is the id.
        context
            .output
            .json(&serde_json::json!({ "name": name, "tag": tag }))?;
    } else {
        context.output.line(&tag)?;
    }
    Ok(EXIT_OK)
}

/// What a caller is called in the log: itself where it is a tag or an open name, and its tag.
pub(super) fn actors(context: &Context, named: &str) -> Result<Vec<String>, CliError> {
    if named.starts_with("hmac-sha256:") {
        return Ok(vec![named.to_owned()]);
    }
    let name = name(named)?;
    // An installation without state has no tags; an open name is found all the same.
    let tag = tag(context, &name).ok();
    Ok(std::iter::once(name).chain(tag).collect())
}

/// The name that stands for an identity; the secret of a key goes no further than this.
fn name(given: &str) -> Result<String, CliError> {
    let text = match given {
        "-" => {
            let mut text = String::new();
            let read = io::stdin().take(MAX_INPUT_BYTES).read_to_string(&mut text);
            read.map_err(CliError::Terminal)?;
            text.trim().to_owned()
        }
        _ => given.trim().to_owned(),
    };
    let Some(rest) = text.strip_prefix(KEY_PREFIX) else {
        return match text.is_empty() {
            true => Err(CliError::Usage(
                "name an identity, such as uid:1000".to_owned(),
            )),
            false => Ok(text),
        };
    };
    let id = rest.split('_').next().unwrap_or_default();
    let is_id = id.len() == 12
        && id
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
    match is_id {
        true => Ok(format!("key:{id}")),
        // Without the text itself: it may be a key all the same.
        false => Err(CliError::Usage("this is no whole API key".to_owned())),
    }
}

/// The key is the installation's, and made by its first server alone.
fn tag(context: &Context, name: &str) -> Result<String, CliError> {
    let path = context.config.paths.audit_identity_key();
    let unusable = |source| CliError::File {
        path: path.clone(),
        source,
    };
    path.symlink_metadata().map_err(unusable)?;
    let key = IdentityKey::open(&path).map_err(unusable)?;
    Ok(identity_hash(&key, name))
}
