//! The rule on what kernels from outside gave.

use super::claim::plugin_check;
use super::{Finding, Held, Missing, require};
use crate::plugins::{Group, PLUGIN_CASES_VERSION};
use crate::receipts::types::{PluginCheckClaim, PluginKernel, PluginResult, Statement};
use std::collections::BTreeSet;

pub(super) fn parts(statement: &Statement) -> Option<(&PluginCheckClaim, &[PluginResult])> {
    Some((plugin_check(statement)?, statement.predicate.plugin_results.as_deref()?))
}

/// Whether nothing was found.
pub(super) fn held(results: &[PluginResult]) -> bool {
    results.iter().all(|result| result.finding.is_none())
}

/// Groups that say something about a kernel, whatever its library.
fn is_owed(group: Group, kernel: &PluginKernel) -> bool {
    match group {
        Group::Tokens => kernel.max_tokens > 1,
        Group::Scales => kernel.result.as_str() != "i32",
        Group::Quantiser => false,
        _ => true,
    }
}

pub(super) fn results(statement: &Statement, claim: &PluginCheckClaim, results: &[PluginResult]) -> Finding {
    let version = claim.case_list.version;
    if version != PLUGIN_CASES_VERSION {
        return Missing(format!(
            "version {version} of the list of cases for plug-ins is not known to this version"
        ));
    }
    require!(statement.predicate.execution.work.is_empty(), "a plug-in check counts no work of a model");
    let mut names = BTreeSet::new();
    for kernel in &claim.kernels {
        let name = &kernel.name;
        require!(names.insert(name), "{name} is claimed twice");
        let there: BTreeSet<_> = results
            .iter()
            .filter(|result| result.kernel == *name)
            .map(|result| result.group.as_str())
            .collect();
        let missing =
            Group::ALL.into_iter().find(|group| is_owed(*group, kernel) && !there.contains(group.name()));
        if let Some(group) = missing {
            return Finding::Broken(format!("{name}: the group {} is missing", group.name()));
        }
    }
    let mut seen = BTreeSet::new();
    for result in results {
        let (kernel, group) = (&result.kernel, &result.group);
        require!(names.contains(kernel), "{kernel} was checked, but is not claimed");
        let known = Group::ALL.into_iter().any(|known| known.name() == group.as_str());
        require!(known, "{kernel}: {group} is no group of the list");
        require!(seen.insert((kernel, group)), "{kernel}: {group} has two results");
        if result.finding.is_none() {
            require!(result.cases > 0, "{kernel}: {group} held, with no case");
            require!(result.outputs_sha256.is_some(), "{kernel}: {group} held, with no digest");
        }
    }
    Held(format!("{} kernels, {} groups", names.len(), seen.len()))
}
