//! What the commands about images ask of a real engine, seen by a filter in front of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

mod support;

use bollard::query_parameters::RemoveImageOptions;
use model::OwnerId;
use sandbox_docker::{
    DockerConfig,
    calls::{self, IMAGE_BUILDING, IMAGES},
    images::{Base, BuildOrder, ImageError, Images, unpack_file},
};
use support::{Filter, HOSTILE_CHANGES, IMAGE, engine, make_base, make_image, without_engine};
use tokio_util::sync::CancellationToken;

const BASE: &str = "claude-code-mcp-test-filtered-base:1";
const BUILT: &str = "claude-code-mcp-test-filtered:1";

fn images(filter: &Filter) -> Images {
    let owner = OwnerId::from_bytes([7; 8]);
    let mut config = DockerConfig::new("/nowhere".into(), owner);
    config.docker_host = Some(format!("unix://{}", filter.socket.display()));
    Images::new(&config).unwrap()
}

async fn build(images: &Images, base: &str) -> Result<(), ImageError> {
    let order = BuildOrder {
        tag: BUILT.to_owned(),
        base: Base::Image {
            name: base.to_owned(),
            fresh: false,
        },
        version: "0".to_owned(),
        agent: None,
    };
    let stop = CancellationToken::new();
    images.build(&order, &stop, &mut |_| {}).await.map(drop)
}

#[tokio::test]
async fn the_commands_about_images_ask_for_what_is_listed_and_a_server_could_not() {
    if without_engine("the calls of images").await {
        return;
    }
    make_image(IMAGE, HOSTILE_CHANGES).await;
    make_base(BASE).await;
    let directory = tempfile::tempdir().unwrap();
    let filter = Filter::start_for(
        &directory.path().join("engine.sock"),
        calls::find_image_call,
    );
    let all = images(&filter);
    build(&all, BASE).await.unwrap();
    let listed = all.list(BUILT).await.unwrap();
    assert!(
        listed[0].is_default && listed[0].obstacle.is_none(),
        "{listed:?}"
    );
    let stop = CancellationToken::new();
    let archive = all.fetch(BUILT, directory.path(), &stop).await.unwrap();
    let unpacked = unpack_file(archive, None, directory.path(), &stop).unwrap();
    assert!(unpacked.directory.join("usr/bin/git").exists());
    // A registry that nobody runs: the engine is asked to fetch, and cannot.
    let unreachable = build(&all, "localhost:9/nothing:1").await;
    assert!(
        matches!(unreachable, Err(ImageError::Pull { .. })),
        "{unreachable:?}"
    );
    assert_eq!(filter.refused(), Vec::<String>::new());
    let made = filter.made();
    for call in IMAGE_BUILDING.iter().chain(IMAGES) {
        assert!(made.contains(call), "{call:?} is listed and was never made");
    }

    // What a server may ask is not enough for any of it.
    let filter = Filter::start(&directory.path().join("server.sock"));
    let few = images(&filter);
    assert!(build(&few, BASE).await.is_err());
    assert!(few.list(BUILT).await.is_err());
    assert!(few.fetch(BUILT, directory.path(), &stop).await.is_err());
    assert!(filter.refused().len() >= 3, "{:?}", filter.refused());
    for name in [BUILT, BASE] {
        engine()
            .remove_image(name, None::<RemoveImageOptions>, None)
            .await
            .unwrap();
    }
}
