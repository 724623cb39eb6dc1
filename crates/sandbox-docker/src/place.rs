//! Whether the engine stands on this host, found out by doing: an engine can be reached from anywhere, and a socket of this
//! host may be the end of a tunnel.
//!
//! Twice. When the engine is described, it is asked for a directory that has just been made here under a name that nobody
//! could guess, and for one that is nowhere: an engine that tells them apart sees this host's files. And with each session,
//! its first process must be one of this kernel's, in a control group of the container's name; the directories that it sees
//! must be the very ones that were meant, and its ids those that they were mapped for. What is told of an engine by itself
//! (its name, its kernel's version, where its socket is) counts for nothing.

use std::{fs, io};

use model::{OwnerId, SessionId};
use sandbox::BackendError;
use sandbox_host::{Layout, RANGE_IDS};

use crate::{
    creation::{blocking, step},
    engine::{Engine, Sight, elsewhere},
    inspection::{Live, live, owned},
};

/// How directories are called that only ask whether they are seen.
const PREFIX: &str = "here-";
/// How many ids the kernel has: what a process without a user namespace of its own is mapped to.
const ALL_IDS: u32 = u32::MAX;

/// Where an engine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It sees this host's files.
    Here,
    /// It does not.
    Elsewhere,
    /// It says neither. Each session proves it, or is refused.
    Unproven,
}

/// Asks the engine. Nothing stays, here or there.
///
/// # Errors
/// When the engine does not answer, or no directory can be made.
pub(crate) async fn find(engine: &Engine, layout: &Layout) -> Result<Place, BackendError> {
    let (name, image) = (nonce()?, nonce()?);
    // Goes with the variable, whatever happens meanwhile.
    let directory = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}", hex::encode(name)))
        .rand_bytes(0)
        .tempdir_in(layout.root())
        .map_err(|source| step("make a directory to be seen", source))?;
    let control = engine
        .sees(&directory.path().join("nowhere"), image)
        .await?;
    let there = engine.sees(directory.path(), image).await?;
    Ok(judge((control, there)))
}

/// What an engine sees that cannot be, and what it sees that is.
const fn judge((control, there): (Sight, Sight)) -> Place {
    match (control, there) {
        (Sight::Missing, Sight::There) => Place::Here,
        (Sight::Missing, Sight::Missing) => Place::Elsewhere,
        (Sight::There | Sight::Unknown, _) | (_, Sight::Unknown) => Place::Unproven,
    }
}

/// Removes what an earlier server left that was killed while it asked.
///
/// # Errors
/// When one stays.
pub(crate) fn clear(layout: &Layout) -> io::Result<()> {
    for entry in fs::read_dir(layout.root())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_dir(entry.path())?;
        }
    }
    Ok(())
}

fn nonce() -> Result<[u8; 32], BackendError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| step("make a name", io::Error::other(error)))?;
    Ok(bytes)
}

/// The first process of a container that was just started, as one of this kernel's.
///
/// # Errors
/// [`BackendError::EngineElsewhere`] when it runs and is none; [`BackendError::Step`] when it has ended.
pub(crate) async fn arrived(
    engine: &Engine,
    owner: &OwnerId,
    session: SessionId,
) -> Result<Live, BackendError> {
    if let Some(live) = live(engine, owner, session).await? {
        return Ok(live);
    }
    // It may have ended between the engine's answer and the look: then it does not run now.
    if let Some(live) = live(engine, owner, session).await? {
        return Ok(live);
    }
    let found = owned(engine, owner, session).await?;
    let state = found.and_then(|found| found.found.state);
    if state.is_some_and(|state| state.running == Some(true)) {
        return Err(elsewhere("its containers are no processes of this host"));
    }
    Err(step(
        "keep the supervisor running",
        io::ErrorKind::NotFound.into(),
    ))
}

/// Whether the ids inside are those that the directories were mapped for.
///
/// # Errors
/// [`BackendError::EngineUnfit`] when they are not.
pub(crate) async fn mapped(pid: i32, first_id: u32) -> Result<(), BackendError> {
    blocking(move || {
        for file in ["uid_map", "gid_map"] {
            let map = fs::read_to_string(format!("/proc/{pid}/{file}"))
                .map_err(|source| step("look at the container's ids", source))?;
            if !fits(&map, first_id) {
                return Err(BackendError::EngineUnfit {
                    why: format!(
                        "its containers have the {file} {:?}, and the project was mapped for ids from {first_id} on",
                        map.split_whitespace().collect::<Vec<_>>().join(" ")
                    ),
                    remedy: UNMAPPED.to_owned(),
                });
            }
        }
        Ok(())
    })
    .await
}

/// What to do about an engine whose ids do not fit.
pub(crate) const UNMAPPED: &str = "let the engine map one range of 65536 ids or more, the same for users and groups \
    (`userns-remap`, /etc/subuid, /etc/subgid), or none; or use the native backend";

fn fits(map: &str, first_id: u32) -> bool {
    let words: Vec<u32> = map
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [0, base, ids] = words[..] else {
        return false;
    };
    let enough = if first_id == 0 { ALL_IDS } else { RANGE_IDS };
    base == first_id && ids >= enough
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_engine_that_tells_a_directory_from_none_is_here_or_elsewhere() {
        let places = [
            ((Sight::Missing, Sight::There), Place::Here),
            ((Sight::Missing, Sight::Missing), Place::Elsewhere),
            // It does not look, or says something else: nothing is proved.
            ((Sight::There, Sight::There), Place::Unproven),
            ((Sight::Unknown, Sight::There), Place::Unproven),
            ((Sight::Missing, Sight::Unknown), Place::Unproven),
        ];
        for (seen, place) in places {
            assert_eq!(judge(seen), place, "{seen:?}");
        }
    }

    #[test]
    fn only_one_range_that_begins_where_it_should_fits() {
        assert!(fits("         0          0 4294967295\n", 0));
        assert!(fits("         0     100000      65536\n", 100_000));
        for (map, first_id) in [
            ("0 100000 65536", 0),
            ("0 0 4294967295", 100_000),
            ("0 100000 65535", 100_000),
            ("0 1000 1\n1 100000 65536", 1000),
            ("1 100001 65536", 100_001),
            ("", 0),
        ] {
            assert!(!fits(map, first_id), "{map} {first_id}");
        }
    }

    #[test]
    fn what_a_killed_server_left_is_cleared_and_nothing_else() {
        let state = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(state.path(), "docker").unwrap();
        fs::create_dir(layout.root().join("here-00")).unwrap();
        clear(&layout).unwrap();
        assert!(!layout.root().join("here-00").exists() && layout.trash().exists());
    }
}
