//! Archives as engines write them, and as somebody writes them who wants out.

use std::{
    fs,
    io::{Seek, Write},
    os::unix::fs::{MetadataExt, symlink},
};

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

/// One entry of a tar.
struct Part<'text> {
    kind: EntryType,
    path: &'text str,
    target: &'text str,
    content: &'text str,
    mode: u32,
}

fn file<'text>(path: &'text str, content: &'text str) -> Part<'text> {
    Part {
        kind: EntryType::Regular,
        path,
        target: "",
        content,
        mode: 0o644,
    }
}

fn other<'text>(kind: EntryType, path: &'text str, target: &'text str) -> Part<'text> {
    Part {
        kind,
        path,
        target,
        content: "",
        mode: 0o755,
    }
}

fn directory(path: &str) -> Part<'_> {
    other(EntryType::Directory, path, "")
}

/// Names are written as they are: the library would refuse the hostile ones.
fn tar(parts: &[Part<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for part in parts {
        let mut header = Header::new_gnu();
        header.set_entry_type(part.kind);
        header.set_mode(part.mode);
        header.set_mtime(1_000_000_000);
        header.set_size(part.content.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..part.path.len()].copy_from_slice(part.path.as_bytes());
        gnu.linkname[..part.target.len()].copy_from_slice(part.target.as_bytes());
        header.set_cksum();
        builder.append(&header, part.content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// What `docker save` writes of an image with these layers.
fn saved(layers: &[Vec<u8>]) -> Vec<u8> {
    saved_as(layers, |digests| digests)
}

fn saved_as(layers: &[Vec<u8>], claim: impl Fn(Vec<String>) -> Vec<String>) -> Vec<u8> {
    let digests = layers
        .iter()
        .map(|layer| archive::digest_of(layer))
        .collect();
    let configuration = serde_json::json!({ "rootfs": { "diff_ids": claim(digests) } }).to_string();
    let names: Vec<_> = (0..layers.len())
        .map(|number| format!("{number}/layer.tar"))
        .collect();
    let manifest = serde_json::json!([{ "Config": "config.json", "Layers": names }]).to_string();
    let mut builder = Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    };
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer);
    }
    add("config.json", configuration.as_bytes());
    add("manifest.json", manifest.as_bytes());
    builder.into_inner().unwrap()
}

/// A place to unpack in, and a victim beside it.
struct Ground {
    directory: TempDir,
}

impl Ground {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("victim")).unwrap();
        fs::write(directory.path().join("victim/file"), "untouched").unwrap();
        fs::create_dir(directory.path().join("place")).unwrap();
        Ground { directory }
    }

    fn victim(&self) -> String {
        self.directory.path().join("victim").display().to_string()
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, UnpackError> {
        let mut archive = tempfile::tempfile().unwrap();
        archive.write_all(bytes).unwrap();
        archive.rewind().unwrap();
        let place = self.directory.path().join("place");
        unpack_file(archive, None, &place, &CancellationToken::new())
    }

    /// Nothing outside was touched, and of what failed nothing is left.
    fn is_clean(&self, unpacked: usize) {
        let victim: Vec<_> = fs::read_dir(self.victim()).unwrap().collect();
        assert_eq!(victim.len(), 1, "{victim:?}");
        let content = fs::read_to_string(self.directory.path().join("victim/file")).unwrap();
        assert_eq!(content, "untouched");
        let names: Vec<_> = fs::read_dir(self.directory.path()).unwrap().collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let place: Vec<_> = fs::read_dir(self.directory.path().join("place"))
            .unwrap()
            .collect();
        assert_eq!(place.len(), unpacked, "{place:?}");
    }
}

/// Without it no archive is unpacked.
fn shell() -> Part<'static> {
    file("bin/sh", "#!")
}

#[test]
fn layers_are_applied_one_over_the_other() {
    let lower = tar(&[
        shell(),
        file("etc/gone", "1"),
        file("etc/kept", "1"),
        file("etc/changed", "1"),
        file("opaque/low", "1"),
        file("opaque/deep/low", "1"),
        file("was-directory/low", "1"),
        other(EntryType::Symlink, "lib", "usr/lib"),
        file("usr/lib/low", "1"),
    ]);
    let upper = tar(&[
        file("etc/.wh.gone", ""),
        file("etc/changed", "22"),
        // Before the mark, and yet of this layer: it stays.
        file("opaque/high", "1"),
        file("opaque/.wh..wh..opq", ""),
        file("was-directory", "file now"),
        file("lib/through-the-link", "1"),
        file(".wh..wh.plnk", ""),
        file(".wh.never-there", ""),
        file("no/such/.wh.directory", ""),
    ]);
    let ground = Ground::new();
    let unpacked = ground.unpack(&saved(&[lower, upper])).unwrap();
    let root = &unpacked.directory;
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    assert_eq!(read("etc/kept").as_deref(), Some("1"));
    assert_eq!(read("etc/gone"), None);
    assert_eq!(read("etc/changed").as_deref(), Some("22"));
    assert_eq!(read("opaque/high").as_deref(), Some("1"));
    assert!(!root.join("opaque/low").exists() && !root.join("opaque/deep").exists());
    assert_eq!(read("was-directory").as_deref(), Some("file now"));
    assert_eq!(read("usr/lib/through-the-link").as_deref(), Some("1"));
    assert!(fs::symlink_metadata(root.join("lib")).unwrap().is_symlink());
    assert_eq!(
        fs::metadata(root.join("etc/kept")).unwrap().mtime(),
        1_000_000_000
    );
    assert!(!root.join(".wh..wh.plnk").exists() && !root.join("no").exists());
    assert_eq!(fs::metadata(root).unwrap().mode() & 0o7777, 0o755);
    ground.is_clean(1);
}

#[test]
fn what_is_there_is_not_unpacked_twice_and_a_named_directory_must_be_new() {
    let ground = Ground::new();
    let bytes = saved(&[tar(&[shell()])]);
    let first = ground.unpack(&bytes).unwrap();
    assert!(!first.was_there && first.directory.ends_with(first.digest.replace(':', "-")));
    assert!(ground.unpack(&bytes).unwrap().was_there);
    let mut archive = tempfile::tempfile().unwrap();
    archive.write_all(&bytes).unwrap();
    let to = ground.directory.path().join("victim");
    let place = ground.directory.path().join("place");
    let refused = unpack_file(archive, Some(&to), &place, &CancellationToken::new());
    assert!(matches!(refused, Err(UnpackError::Exists(_))));
    ground.is_clean(1);
}

#[test]
fn set_id_bits_foreign_writing_and_devices_are_left_out() {
    let ground = Ground::new();
    let with_mode = |path, mode| Part {
        mode,
        ..file(path, "1")
    };
    let unpacked = ground
        .unpack(&tar(&[
            shell(),
            with_mode("suid", 0o6755),
            with_mode("open", 0o666),
            with_mode("secret", 0o600),
            Part {
                mode: 0o1777,
                ..directory("tmp")
            },
            Part {
                mode: 0o000,
                ..directory("closed")
            },
            file("closed/inside", "1"),
            other(EntryType::Char, "dev/null", ""),
            other(EntryType::Block, "dev/sda", ""),
            other(EntryType::Fifo, "pipe", ""),
        ]))
        .unwrap();
    let mode = |path: &str| {
        let found = fs::symlink_metadata(unpacked.directory.join(path)).unwrap();
        found.mode() & 0o7777
    };
    assert_eq!(mode("suid"), 0o755);
    assert_eq!(mode("open"), 0o644);
    assert_eq!(mode("secret"), 0o600);
    assert_eq!(mode("tmp"), 0o755);
    assert_eq!(mode("closed"), 0o700);
    assert_eq!(unpacked.left_out, 3);
    assert!(!unpacked.directory.join("pipe").exists());
    assert!(!unpacked.directory.join("dev").exists());
}

#[test]
fn paths_that_lead_out_are_refused() {
    for part in [
        file("../victim/new", "evil"),
        file("a/../../victim/new", "evil"),
        other(EntryType::Link, "a", "../victim/file"),
        file(".wh...", ""),
        file("a/.wh..", ""),
    ] {
        let ground = Ground::new();
        let refused = ground.unpack(&tar(&[shell(), part]));
        assert!(
            matches!(refused, Err(UnpackError::Escape(_))),
            "{refused:?}"
        );
        ground.is_clean(0);
    }
    // The control: the same without a hostile entry.
    let ground = Ground::new();
    ground.unpack(&tar(&[shell(), file("a/new", "1")])).unwrap();
    ground.is_clean(1);
}

#[test]
fn what_is_written_through_a_link_stays_inside() {
    let ground = Ground::new();
    let victim = ground.victim();
    let up = "../".repeat(12) + victim.trim_start_matches('/');
    for target in [victim.as_str(), up.as_str()] {
        let ground_here = &ground;
        // The control: the link does lead to the victim when anybody else follows it.
        let control = ground.directory.path().join("place/control");
        symlink(target, &control).unwrap();
        assert!(control.join("file").exists());
        fs::remove_file(&control).unwrap();
        let inside = victim.trim_start_matches('/');
        let written = ground_here.unpack(&tar(&[
            shell(),
            directory(inside),
            other(EntryType::Symlink, "way", target),
            file("way/file", "evil"),
            file("way/new", "evil"),
        ]));
        let root = written.unwrap().directory;
        let read = fs::read_to_string(root.join(inside).join("new")).unwrap();
        assert_eq!(read, "evil", "it went where the link leads inside");
        fs::remove_dir_all(root).unwrap();
        ground.is_clean(0);
    }
    // A link to something that is not inside leads nowhere, and the archive is refused.
    let refused = ground.unpack(&tar(&[
        shell(),
        other(EntryType::Symlink, "way", &victim),
        file("way/new", "evil"),
    ]));
    assert!(
        matches!(refused, Err(UnpackError::Write { .. })),
        "{refused:?}"
    );
    ground.is_clean(0);
}

#[test]
fn a_file_replaces_a_link_and_is_not_written_through_it() {
    let ground = Ground::new();
    let target = format!("{}/file", ground.victim());
    let unpacked = ground
        .unpack(&tar(&[
            shell(),
            other(EntryType::Symlink, "name", &target),
            file("name", "evil"),
        ]))
        .unwrap();
    let name = unpacked.directory.join("name");
    assert!(fs::symlink_metadata(&name).unwrap().is_file());
    assert_eq!(fs::read_to_string(name).unwrap(), "evil");
    ground.is_clean(1);
}

#[test]
fn hard_links_are_of_files_inside_alone() {
    let ground = Ground::new();
    let outside = format!("{}/file", ground.victim());
    let unpacked = ground
        .unpack(&tar(&[
            shell(),
            file("real", "1"),
            other(EntryType::Link, "same", "real"),
            other(EntryType::Link, "same", "./real"),
            // Replaced, not written through: `real` keeps what it had.
            file("same", "other"),
        ]))
        .unwrap();
    assert_eq!(
        fs::read_to_string(unpacked.directory.join("real")).unwrap(),
        "1"
    );
    assert_eq!(
        fs::read_to_string(unpacked.directory.join("same")).unwrap(),
        "other"
    );
    fs::remove_dir_all(unpacked.directory).unwrap();
    for parts in [
        vec![shell(), other(EntryType::Link, "same", &outside)],
        vec![shell(), other(EntryType::Link, "same", "bin")],
        vec![
            shell(),
            other(EntryType::Symlink, "way", &outside),
            // Another name of the link itself, and then through it.
            other(EntryType::Link, "same", "way"),
            file("same/x", "evil"),
        ],
    ] {
        let refused = ground.unpack(&tar(&parts));
        assert!(refused.is_err(), "{refused:?}");
        ground.is_clean(0);
    }
}

#[test]
fn deletions_stay_inside() {
    let ground = Ground::new();
    let victim = ground.victim();
    let lower = tar(&[shell(), other(EntryType::Symlink, "way", &victim)]);
    let upper = tar(&[file("way/.wh.file", ""), file("way/.wh..wh..opq", "")]);
    let unpacked = ground.unpack(&saved(&[lower, upper])).unwrap();
    assert!(
        fs::symlink_metadata(unpacked.directory.join("way"))
            .unwrap()
            .is_symlink()
    );
    ground.is_clean(1);
    // The control: the same deletions of something inside.
    let lower = tar(&[
        shell(),
        file("here/file", "1"),
        other(EntryType::Symlink, "way", "/here"),
    ]);
    let upper = tar(&[file("way/.wh.file", "")]);
    let unpacked = ground.unpack(&saved(&[lower, upper])).unwrap();
    assert!(!unpacked.directory.join("here/file").exists());
}

#[test]
fn layers_that_are_not_those_of_the_configuration_are_refused() {
    let ground = Ground::new();
    let layers = [tar(&[shell()])];
    let forged = saved_as(&layers, |digests| {
        digests
            .iter()
            .map(|digest| digest.replace(|c: char| c.is_ascii_digit(), "0"))
            .collect()
    });
    let refused = ground.unpack(&forged);
    assert!(
        matches!(refused, Err(UnpackError::Digest { .. })),
        "{refused:?}"
    );
    let fewer = saved_as(&layers, |_| Vec::new());
    assert!(matches!(ground.unpack(&fewer), Err(UnpackError::Format(_))));
    ground.is_clean(0);
    ground.unpack(&saved(&layers)).unwrap();
}

#[test]
fn compressed_archives_and_layouts_are_understood() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let root = tar(&[shell(), file("here", "1")]);
    let ground = Ground::new();
    ground.unpack(&gzip(&root)).unwrap();
    let layer = gzip(&root);
    let configuration =
        serde_json::json!({ "rootfs": { "diff_ids": [archive::digest_of(&root)] } }).to_string();
    let name = |bytes: &[u8]| archive::digest_of(bytes);
    let manifest = serde_json::json!({
        "config": { "digest": name(configuration.as_bytes()) },
        "layers": [{ "digest": name(&layer) }],
    })
    .to_string();
    let foreign = serde_json::json!({ "architecture": "s390x", "os": "linux" });
    let index = serde_json::json!({ "manifests": [
        { "digest": name(b"other"), "platform": foreign },
        { "digest": name(manifest.as_bytes()) },
    ]})
    .to_string();
    let layout = |manifest: &str| {
        let mut builder = Builder::new(Vec::new());
        let mut add = |path: &str, content: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content).unwrap();
        };
        add("oci-layout", b"{}");
        add("index.json", index.as_bytes());
        for content in [configuration.as_bytes(), manifest.as_bytes(), &layer] {
            let path = name(content).replace(':', "/");
            add(&format!("blobs/{path}"), content);
        }
        builder.into_inner().unwrap()
    };
    let unpacked = ground.unpack(&layout(&manifest)).unwrap();
    assert_eq!(unpacked.digest, name(configuration.as_bytes()));
    assert!(unpacked.directory.join("here").exists());
    assert!(
        ground.unpack(&layout("{}")).is_err(),
        "a manifest that is not the named one"
    );
}

#[test]
fn archives_that_are_none_or_too_much_are_refused() {
    let ground = Ground::new();
    assert!(ground.unpack(b"").is_err());
    assert!(ground.unpack(&[7; 4096]).is_err());
    assert!(matches!(
        ground.unpack(&tar(&[file("a", "1")])),
        Err(UnpackError::NoShell)
    ));
    let mut long = Header::new_gnu();
    long.set_entry_type(EntryType::GNULongName);
    long.set_size(2 << 20);
    long.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&long, &vec![b'a'; 2 << 20][..]).unwrap();
    let refused = ground.unpack(&builder.into_inner().unwrap());
    assert!(
        matches!(refused, Err(UnpackError::TooLarge(_))),
        "{refused:?}"
    );
    let mut huge = Header::new_gnu();
    huge.set_path("huge").unwrap();
    huge.set_size(MAX_BYTES + 1);
    huge.set_cksum();
    let refused = ground.unpack(huge.as_bytes());
    assert!(refused.is_err(), "{refused:?}");
    let stop = CancellationToken::new();
    stop.cancel();
    let mut archive = tempfile::tempfile().unwrap();
    archive.write_all(&tar(&[shell()])).unwrap();
    let place = ground.directory.path().join("place");
    let refused = unpack_file(archive, None, &place, &stop);
    assert!(
        matches!(refused, Err(UnpackError::Interrupted)),
        "{refused:?}"
    );
    ground.is_clean(0);
}
