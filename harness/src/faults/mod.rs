//! Injected faults: published bugs of this field, re-created, and handed to the ordinary checks. The checks are what is
//! tested here: each fault must be caught, and called by its name.
//!
//! ```text
//! kernels.rs   faulty kernels                              → kernel check, digest matrix
//! formats.rs   faulty readers, and a file of another kind  → golden formats, hostile files
//! graphs.rs    faulty graphs                               → parity with golden logits, parity with a reference
//! runs.rs      a wrong environment, reports of what did not run  → float environment, receipt rules
//! ```
//!
//! Nothing here is used by anything but the self-test. The list is that of `docs/field-bugs.md`, row by row.

mod formats;
mod graphs;
mod kernels;
mod runs;

use crate::receipts::types::Statement;
use crate::runs::formats::Reader;
use crate::runs::hostile;
use assay_engine::kernels::Kernels;
use assay_engine::kind::Kind;
use assay_engine::model::Model;
use serde::Serialize;

/// One fault: what it is, where it was seen, and how to plant it.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The kind that the check must name.
    pub kind: Kind,
    /// What is wrong, in a line.
    pub what: &'static str,
    /// Where something of this kind was published.
    pub source: &'static str,
    plant: Plant,
}

/// The wrong thing, for the check that must catch it.
#[derive(Debug, Clone, Copy)]
enum Plant {
    /// An operation of a table that is otherwise scalar's; the kernel check must catch it.
    Kernel(&'static str, fn(&mut Kernels)),
    /// A table that is otherwise the fastest here, run through a golden model; the digest matrix must catch it.
    Matrix(fn(&mut Kernels)),
    /// A reader of formats; the golden bytes must catch it.
    Format(Reader),
    /// A reader of files; the hostile files must catch it.
    File(hostile::Reader),
    /// A file that the engine's reader must refuse.
    Refused(fn() -> Vec<u8>),
    /// A graph, or a table that makes it one; parity with golden logits must catch it.
    Graph(fn(&mut Model<'_>), fn(&mut Kernels)),
    /// A graph, or a table that makes it one, in the place of a reference; parity with a reference must catch it.
    Reference(fn(&mut Model<'_>), fn(&mut Kernels)),
    /// A thread with a wrong float environment; the check of the environment must catch it.
    Environment(fn() -> Option<String>),
    /// A receipt that says other than what ran; its rules must catch it.
    Receipt(fn(&mut Statement)),
}

impl Plant {
    /// The check that must catch it, as `assay check` calls it.
    fn check(self) -> &'static str {
        match self {
            Plant::Kernel(..) => "kernels",
            Plant::Matrix(_) => "digest matrix",
            Plant::Format(_) => "golden formats",
            Plant::File(_) | Plant::Refused(_) => "hostile GGUF files",
            Plant::Graph(..) => "parity with C++ logits",
            Plant::Reference(..) => "parity with a reference",
            Plant::Environment(_) => "float environment",
            Plant::Receipt(_) => "receipts",
        }
    }
}

/// What became of a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Id of the kind.
    pub id: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// Where it was published.
    pub source: &'static str,
    /// The check that it was handed to, as `assay check` calls it.
    pub check: &'static str,
    /// Caught, and called by its name.
    pub killed: bool,
    /// What the check said; `None` if it found nothing wrong.
    pub message: Option<String>,
}

impl Outcome {
    /// The fault and what was said of it, for a survivor.
    pub fn line(&self) -> String {
        let said = self.message.as_deref().map_or("nothing was found".to_owned(), |said| {
            format!("caught, but not called {}: {said}", self.id)
        });
        format!("{} ({}) survives {}: {said}", self.id, self.what, self.check)
    }
}

impl Fault {
    /// The check that it is handed to, as `assay check` calls it.
    pub fn check(&self) -> &'static str {
        self.plant.check()
    }
}

/// All faults, in the order of [`Kind::ALL`].
pub fn all() -> Vec<Fault> {
    let mut all = [kernels::FAULTS, formats::FAULTS, graphs::FAULTS, graphs::PLAYED, runs::FAULTS].concat();
    all.sort_by_key(|fault| fault.kind);
    all
}

/// Hands every fault to its check. `progress` is told which one is next.
///
/// # Errors
/// - the program's own golden data cannot be read or run.
pub fn run_all(progress: &mut dyn FnMut(&Fault)) -> anyhow::Result<Vec<Outcome>> {
    all()
        .iter()
        .map(|fault| {
            progress(fault);
            run(fault)
        })
        .collect()
}

/// Hands one fault to its check.
fn run(fault: &Fault) -> anyhow::Result<Outcome> {
    let message = match fault.plant {
        Plant::Kernel(operation, plant) => kernels::check(operation, plant),
        Plant::Matrix(plant) => graphs::matrix(plant)?,
        Plant::Format(reader) => crate::runs::formats::read_by(&reader).err().map(|e| e.to_string()),
        Plant::File(reader) => hostile::refused_by(reader).err().map(|e| e.to_string()),
        Plant::Refused(file) => hostile::engine(&file()),
        Plant::Graph(graph, table) => graphs::parity(graph, table)?,
        Plant::Reference(graph, table) => graphs::reference(graph, table)?,
        Plant::Environment(check) => check(),
        Plant::Receipt(forge) => runs::verified(forge)?,
    };
    let named = message.as_ref().is_some_and(|said| said.contains(&format!("({})", fault.kind.id())));
    let Fault { kind, what, source, plant } = *fault;
    Ok(Outcome { id: kind.id(), what, source, check: plant.check(), killed: named, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::formats::ENGINE;

    /// What the self-test says of a plant that is no fault, or another one than it says.
    fn outcome(plant: Plant) -> Outcome {
        run(&Fault { kind: Kind::StaleTail, what: "nothing", source: "nowhere", plant }).expect("golden data")
    }

    #[test]
    fn what_is_not_wrong_survives() {
        let nothing = [
            Plant::Kernel("add_f32", |_| ()),
            Plant::Matrix(|_| ()),
            Plant::Format(ENGINE),
            Plant::File(hostile::engine),
            Plant::Refused(assay_engine::gguf::hostile::valid),
            Plant::Graph(|_| (), |_| ()),
            Plant::Reference(|_| (), |_| ()),
            Plant::Environment(|| None),
            Plant::Receipt(|_| ()),
        ];
        for plant in nothing {
            let outcome = outcome(plant);
            assert_eq!((outcome.killed, &outcome.message), (false, &None), "{}", outcome.check);
            assert!(outcome.line().contains("nothing was found"));
        }
    }

    #[test]
    fn what_is_called_by_another_name_survives() {
        let outcome = outcome(Plant::Kernel("gemv_i2s_i8", |k| k.gemv_i2s_i8 = |_, _, _, _| ()));
        assert!(
            !outcome.killed && outcome.line().contains("caught, but not called stale-tail"),
            "{outcome:?}"
        );
    }
}
