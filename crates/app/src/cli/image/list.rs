//! `image list`

use sandbox_docker::images::ListedImage;
use serde::Serialize;

use super::{images, refused};
use crate::{
    cli::{
        CliError, Context, EXIT_OK,
        output::{Color, note},
    },
    config::units::{format_duration, format_size},
};

/// Digits of an id that a table shows: as many as engines show, and enough to name it.
const SHORT_ID_DIGITS: usize = 12;

/// What `--json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImagesReply {
    /// The name that sessions are made of.
    default: String,
    images: Vec<ImageReply>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageReply {
    names: Vec<String>,
    id: String,
    size_bytes: u64,
    created: Option<String>,
    age_seconds: Option<u64>,
    base: Option<String>,
    made_by: Option<String>,
    is_default: bool,
    usable: bool,
    reason: Option<String>,
}

impl From<ListedImage> for ImageReply {
    fn from(image: ListedImage) -> Self {
        ImageReply {
            names: image.names,
            id: image.id,
            size_bytes: image.size_bytes,
            created: image.created,
            age_seconds: image.age.map(|age| age.as_secs()),
            base: image.base,
            made_by: image.made_by,
            is_default: image.is_default,
            usable: image.obstacle.is_none(),
            reason: image.obstacle,
        }
    }
}

pub(super) async fn run(context: &Context) -> Result<u8, CliError> {
    let configured = &context.config.image;
    let listed = images(context)
        .await?
        .list(configured)
        .await
        .map_err(refused)?;
    if !listed.iter().any(|image| image.is_default) {
        note(&format!(
            "the engine does not have {configured}, which sessions are made of: claude-code-mcp image build"
        ));
    }
    if context.output.json {
        context.output.json(&ImagesReply {
            default: configured.clone(),
            images: listed.into_iter().map(Into::into).collect(),
        })?;
    } else if !listed.is_empty() {
        let rows = listed.iter().map(|image| row(context, image));
        context.output.table(
            &["NAME", "ID", "SIZE", "AGE", "BASE", "SESSIONS"],
            rows.collect::<Vec<_>>(),
        )?;
    }
    Ok(EXIT_OK)
}

fn row(context: &Context, image: &ListedImage) -> Vec<String> {
    let unknown = || "-".to_owned();
    let digits = image.id.trim_start_matches("sha256:");
    let sessions = match (&image.obstacle, image.is_default) {
        (Some(why), _) => context.output.paint(Color::Yellow, &format!("no: {why}")),
        (None, true) => context.output.paint(Color::Green, "yes, by default"),
        (None, false) => "possible".to_owned(),
    };
    vec![
        if image.names.is_empty() {
            unknown()
        } else {
            image.names.join(", ")
        },
        digits.chars().take(SHORT_ID_DIGITS).collect(),
        format_size(image.size_bytes),
        image.age.map_or_else(unknown, format_duration),
        image.base.clone().unwrap_or_else(unknown),
        sessions,
    ]
}
