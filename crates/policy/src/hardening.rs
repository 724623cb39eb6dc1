//! The hardening profile, `profiles/hardening.json`: layers, limits, and names that an environment cannot set.

use model::{BackendName, Kernel, Layer, Limit, LimitName, Limits, Requirement};
use serde::Deserialize;

use crate::PolicyError;

const FILE: &str = "hardening.json";
const DATA: &str = include_str!("../../../profiles/hardening.json");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Data {
    #[serde(rename = "about")]
    _about: String,
    layers: Vec<LayerEntry>,
    limits: Vec<LimitEntry>,
    reserved_environment: Vec<EnvironmentEntry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LayerEntry {
    layer: Layer,
    requirement: Requirement,
    /// The same for sandboxes from an engine, where it differs.
    on_docker: Option<Requirement>,
    /// The same for sandboxes with a kernel of their own, where it differs.
    on_guest_kernel: Option<Requirement>,
    reason: String,
}

impl LayerEntry {
    const fn required_by(&self, backend: BackendName, kernel: Kernel) -> Requirement {
        match (kernel, self.on_guest_kernel, backend, self.on_docker) {
            (Kernel::Guest, Some(requirement), _, _)
            | (Kernel::Shared, _, BackendName::Docker, Some(requirement)) => requirement,
            _ => self.requirement,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LimitEntry {
    limit: LimitName,
    default: u64,
    floor: u64,
    ceiling: u64,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EnvironmentEntry {
    name: String,
    reason: String,
}

/// What a limit can be set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The least with which a session works at all.
    pub(crate) floor: u64,
    /// The most that a configuration can name.
    pub(crate) ceiling: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Hardening {
    layers: Vec<LayerEntry>,
    defaults: Limits,
    floors: Limits,
    ceilings: Limits,
    reserved_environment: Vec<(String, String)>,
}

impl Hardening {
    pub(crate) fn load() -> Result<Self, PolicyError> {
        let data: Data = serde_json::from_str(DATA)
            .map_err(|source| PolicyError::ProfileSyntax { file: FILE, source })?;
        check(&data).map_err(|why| PolicyError::Profile { file: FILE, why })?;
        let limits = |value: fn(&LimitEntry) -> u64| {
            let mut limits = all_zero();
            for entry in &data.limits {
                limits.set(entry.limit, Limit::default_of(value(entry)));
            }
            limits
        };
        Ok(Hardening {
            defaults: limits(|entry| entry.default),
            floors: limits(|entry| entry.floor),
            ceilings: limits(|entry| entry.ceiling),
            layers: data.layers,
            reserved_environment: data
                .reserved_environment
                .into_iter()
                .map(|entry| (entry.name, entry.reason))
                .collect(),
        })
    }

    /// What sandboxes of that backend with that kernel must show, in the order of [`Layer`].
    pub(crate) fn layers(&self, backend: BackendName, kernel: Kernel) -> Vec<(Layer, Requirement)> {
        self.layers
            .iter()
            .map(|entry| (entry.layer, entry.required_by(backend, kernel)))
            .collect()
    }

    pub(crate) const fn defaults(&self) -> Limits {
        self.defaults
    }

    pub(crate) const fn range(&self, name: LimitName) -> Range {
        Range {
            floor: self.floors.get(name).value,
            ceiling: self.ceilings.get(name).value,
        }
    }

    /// Why a caller cannot set this variable.
    pub(crate) fn why_reserved(&self, name: &str) -> Option<&str> {
        let hit =
            self.reserved_environment
                .iter()
                .find(|(pattern, _)| match pattern.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => name == pattern,
                });
        hit.map(|(_, reason)| reason.as_str())
    }
}

const fn all_zero() -> Limits {
    let zero = Limit::default_of(0);
    Limits {
        memory_bytes: zero,
        cpu_millis: zero,
        pids: zero,
        open_files: zero,
        file_bytes: zero,
        temporary_bytes: zero,
        state_bytes: zero,
    }
}

fn check(data: &Data) -> Result<(), String> {
    if !data.layers.iter().map(|entry| entry.layer).eq(Layer::ALL) {
        return Err("`layers` must name every layer once, in the order of the model".to_owned());
    }
    if !data
        .limits
        .iter()
        .map(|entry| entry.limit)
        .eq(LimitName::ALL)
    {
        return Err("`limits` must name every limit once, in the order of the model".to_owned());
    }
    if let Some(entry) = data.limits.iter().find(|entry| {
        entry.floor == 0 || entry.floor > entry.default || entry.default > entry.ceiling
    }) {
        return Err(format!(
            "{}: 0 < floor ≤ default ≤ ceiling does not hold",
            entry.limit.as_str()
        ));
    }
    let layers = data.layers.iter().map(|entry| &entry.reason);
    let limits = data.limits.iter().map(|entry| &entry.reason);
    let environment = data.reserved_environment.iter().map(|entry| &entry.reason);
    if layers
        .chain(limits)
        .chain(environment)
        .any(|reason| reason.trim().is_empty())
    {
        return Err("an entry has no reason".to_owned());
    }
    if data
        .reserved_environment
        .iter()
        .any(|entry| entry.name.trim_end_matches('*').is_empty())
    {
        return Err("`reservedEnvironment` reserves everything".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Data {
        serde_json::from_str(DATA).unwrap()
    }

    #[test]
    fn the_shipped_profile_is_consistent() {
        let hardening = Hardening::load().unwrap();
        assert_eq!(
            hardening.layers(BackendName::Native, Kernel::Shared).len(),
            Layer::ALL.len()
        );
        assert_eq!(hardening.defaults().memory_bytes.value, 2 << 30);
        assert_eq!(hardening.range(LimitName::Pids).floor, 8);
    }

    #[test]
    fn the_walls_that_everything_stands_on_are_required() {
        let hardening = Hardening::load().unwrap();
        let optional = |backend, kernel| {
            hardening
                .layers(backend, kernel)
                .into_iter()
                .filter(|(_, requirement)| *requirement == Requirement::WhereAvailable)
                .map(|(layer, _)| layer)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            optional(BackendName::Native, Kernel::Shared),
            [Layer::CgroupNamespace, Layer::Landlock, Layer::GuestKernel]
        );
        assert_eq!(
            optional(BackendName::Docker, Kernel::Shared),
            [
                Layer::UserNamespace,
                Layer::CgroupNamespace,
                Layer::Landlock,
                Layer::GuestKernel
            ]
        );
        assert_eq!(
            optional(BackendName::Docker, Kernel::Guest),
            [Layer::CgroupNamespace, Layer::Landlock]
        );
    }

    #[test]
    fn an_unknown_layer_a_forgotten_one_and_a_missing_reason_are_found() {
        assert!(
            serde_json::from_str::<Data>(&DATA.replace("\"seccomp\"", "\"seccompp\"")).is_err()
        );
        assert!(serde_json::from_str::<Data>(&DATA.replace("\"floor\"", "\"minimum\"")).is_err());
        assert_eq!(check(&data()), Ok(()));
        let broken: [fn(&mut Data); 7] = [
            |data| drop(data.layers.pop()),
            |data| data.layers.swap(0, 1),
            |data| drop(data.limits.pop()),
            |data| data.limits[0].floor = u64::MAX,
            |data| data.limits[0].ceiling = 1,
            |data| data.layers[3].reason = " ".to_owned(),
            |data| data.reserved_environment[0].name = "*".to_owned(),
        ];
        for (index, breakage) in broken.into_iter().enumerate() {
            let mut data = data();
            breakage(&mut data);
            assert!(check(&data).is_err(), "breakage {index}");
        }
    }

    #[test]
    fn every_reserved_name_is_used() {
        let hardening = Hardening::load().unwrap();
        for entry in data().reserved_environment {
            let example = entry.name.replace('*', "X");
            assert_eq!(
                hardening.why_reserved(&example),
                Some(entry.reason.as_str()),
                "{example}"
            );
        }
        assert_eq!(hardening.why_reserved("PATH"), None);
    }
}
