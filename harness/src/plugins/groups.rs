//! The cases, in groups: what each tries, in the order in which they are tried.

use super::formats::{Activations, Weights};
use super::problem::{Acts, Fill, Recipe, Sizes};
use assay_engine::kernels::check::data::{Data, ROWS, SIZES};
use assay_engine::kernels::plugin::{Declared, ResultKind};
use serde::{Deserialize, Serialize};

/// Version of the list of cases: a receipt names it, and a change of any case is a new number.
pub const PLUGIN_CASES_VERSION: u32 = 1;

/// Random shapes, besides the fixed ones.
const RANDOM_CASES: u32 = 100;
/// Most multiply-adds of a case among the shapes.
const CASE_SIZE: usize = 60_000;

/// Which wall the data lie against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wall {
    /// They end where the next page may not be touched.
    Behind,
    /// They begin where the page before may not be touched.
    Before,
    /// This many bytes behind the start of a page.
    Offset(usize),
}

/// A group of cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Data in which any two groups, fields and rows differ.
    Revealing,
    /// Every number of rows with every row length, all kinds of data.
    Shapes,
    /// The largest sums: where narrow accumulators overflow.
    Extremes,
    /// Scales other than 1.
    Scales,
    /// Activations whose sum is far from 0.
    Mean,
    /// Weights or activations that are all zero.
    Zeros,
    /// Several tokens at once, each as if it were alone.
    Tokens,
    /// Rows, tokens and outputs with room between them: nothing there counts, nothing is written.
    Padding,
    /// Buffers that begin where the page before may not be touched. (Everywhere else they end where the next may not be.)
    GuardBefore,
    /// Every address that the kernel says it takes.
    Alignment,
    /// Calls that share weights or activations.
    Aliasing,
    /// The same call again, after others: the same bits.
    Repeatability,
    /// Calls on several threads at once, each with its own data.
    Threads,
    /// The library's quantiser of activations, held to the contract's.
    Quantiser,
}

impl Group {
    /// Every group, in order.
    pub const ALL: [Group; 14] = [
        Group::Revealing,
        Group::Shapes,
        Group::Extremes,
        Group::Scales,
        Group::Mean,
        Group::Zeros,
        Group::Tokens,
        Group::Padding,
        Group::GuardBefore,
        Group::Alignment,
        Group::Aliasing,
        Group::Repeatability,
        Group::Threads,
        Group::Quantiser,
    ];

    /// The name in tables and receipts.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Revealing => "revealing",
            Group::Shapes => "shapes",
            Group::Extremes => "extremes",
            Group::Scales => "scales",
            Group::Mean => "mean",
            Group::Zeros => "zeros",
            Group::Tokens => "tokens",
            Group::Padding => "padding",
            Group::GuardBefore => "guard-before",
            Group::Alignment => "alignment",
            Group::Aliasing => "aliasing",
            Group::Repeatability => "repeatability",
            Group::Threads => "threads",
            Group::Quantiser => "quantiser",
        }
    }

    /// Whether it says anything about a kernel with these properties.
    pub(super) fn applies(self, declared: &Declared, peer: bool) -> bool {
        match self {
            Group::Tokens => declared.max_tokens > 1,
            Group::Scales => declared.result != ResultKind::I32,
            Group::Quantiser => peer && declared.activations != "i8",
            _ => true,
        }
    }
}

/// A case: what is multiplied, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Case {
    pub(super) recipe: Recipe,
    pub(super) wall: Wall,
    /// Walls of weights, activations and outputs, where they are not all `wall`.
    pub(super) offsets: [usize; 3],
    /// Bytes between rows, tokens and outputs, in units of their alignment.
    pub(super) gap: usize,
}

impl Case {
    const fn new(recipe: Recipe) -> Case {
        Case { recipe, wall: Wall::Behind, offsets: [0; 3], gap: 0 }
    }

    /// What it is, in words.
    pub(super) fn text(&self, seed: u64, number: u64) -> String {
        let Recipe { rows, cols, tokens, fill, acts, sizes } = self.recipe;
        let mut text = format!("seed {seed}, case {number}: {rows} rows x {cols} columns, ");
        if tokens != 1 {
            text += &format!("{tokens} tokens, ");
        }
        text += &format!("weights {fill:?}, activations {acts:?}, scales {sizes:?}").to_lowercase();
        match self.wall {
            Wall::Behind => {}
            Wall::Before => text += ", guard page before",
            Wall::Offset(_) => text += &format!(", addresses off by {:?}", self.offsets),
        }
        if self.gap > 0 {
            text += &format!(", {} units between rows", self.gap);
        }
        text
    }
}

/// The lists of cases of one kernel.
pub(super) struct Lists<'a> {
    pub(super) declared: &'a Declared,
    pub(super) weights: &'static Weights,
    pub(super) activations: &'static Activations,
    pub(super) seed: u64,
}

impl Lists<'_> {
    /// Row lengths are multiples of this.
    pub(super) fn unit(&self) -> usize {
        let block = if self.weights.padding.is_some() { 1 } else { self.weights.block };
        lcm(lcm(block, self.activations.block), self.declared.cols_multiple)
    }

    /// Row lengths at the boundaries inside kernels that this one takes, and small multiples of its unit.
    fn lengths(&self) -> Vec<usize> {
        let unit = self.unit();
        let mut lengths: Vec<usize> =
            SIZES.into_iter().filter(|n| *n > 0 && n.is_multiple_of(unit)).collect();
        let longest = 2600.max(2 * unit);
        lengths.extend((1..=10).map(|n| n * unit).filter(|n| *n <= longest));
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    }

    fn long(&self) -> usize {
        2560.max(self.unit()).next_multiple_of(self.unit())
    }

    fn recipe(&self, rows: usize, cols: usize, fill: Fill, acts: Acts, sizes: Sizes) -> Recipe {
        Recipe { rows, cols, tokens: 1, fill, acts, sizes }
    }

    fn exact(&self) -> Sizes {
        // Powers of two keep a close result exact, so that a wrong one shows.
        if self.declared.result == ResultKind::F32Close { Sizes::Powers } else { Sizes::Ordinary }
    }

    pub(super) fn cases(&self, group: Group) -> Vec<Case> {
        match group {
            Group::Revealing => self.revealing(),
            Group::Shapes => self.shapes(),
            Group::Extremes => self.extremes(),
            Group::Scales => self.scales(),
            Group::Mean => self.few(Fill::Random, Acts::Positive),
            Group::Zeros => self.zeros(),
            Group::Tokens => self.tokens(),
            Group::Padding => self.padding(),
            Group::GuardBefore => self.guard_before(),
            Group::Alignment => self.alignment(),
            Group::Aliasing | Group::Repeatability | Group::Threads => self.few(Fill::Random, Acts::Random),
            Group::Quantiser => Vec::new(),
        }
    }

    fn revealing(&self) -> Vec<Case> {
        let lengths = self.lengths();
        let shapes = lengths.iter().flat_map(|&cols| [1, 3, 5].map(|rows| (rows, cols)));
        shapes
            .map(|(rows, cols)| {
                Case::new(self.recipe(rows, cols, Fill::Revealing, Acts::Revealing, Sizes::Ones))
            })
            .collect()
    }

    fn shapes(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        let kinds = [
            (Fill::Random, Acts::Random, Sizes::Ones),
            (Fill::Random, Acts::Random, self.exact()),
            (Fill::Random, Acts::Random, Sizes::Ordinary),
            (Fill::Revealing, Acts::Random, Sizes::Ordinary),
        ];
        for (rows, cols) in
            ROWS.into_iter().flat_map(|rows| self.lengths().into_iter().map(move |cols| (rows, cols)))
        {
            if rows * cols <= CASE_SIZE {
                cases.extend(
                    kinds.map(|(fill, acts, sizes)| Case::new(self.recipe(rows, cols, fill, acts, sizes))),
                );
            }
        }
        let mut data = Data::new(self.seed, "plugin shapes", u64::MAX);
        cases.extend((0..RANDOM_CASES).map(|_| {
            let cols = (1 + data.below(1400)).next_multiple_of(self.unit());
            Case::new(self.recipe(
                data.below(20),
                cols,
                Fill::Random,
                Acts::Random,
                data.one_of(&[Sizes::Ones, Sizes::Powers, Sizes::Ordinary]),
            ))
        }));
        cases
    }

    fn extremes(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        let lengths = [self.unit(), 2 * self.unit(), 256, 512, 1024, 2560, 6912, 14_336, 20_480];
        for cols in lengths.map(|cols: usize| cols.next_multiple_of(self.unit())) {
            for fill in [Fill::High, Fill::Low, Fill::Alternating] {
                for acts in [Acts::High, Acts::Low, Acts::Alternating] {
                    cases.push(Case::new(self.recipe(2, cols, fill, acts, Sizes::Ones)));
                }
            }
        }
        cases
    }

    fn scales(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for (rows, cols) in [(1, self.unit()), (4, 2 * self.unit()), (5, self.long())] {
            for sizes in [Sizes::Powers, Sizes::Ordinary] {
                for _ in 0..8 {
                    cases.push(Case::new(self.recipe(rows, cols, Fill::Random, Acts::Random, sizes)));
                }
            }
        }
        cases
    }

    fn few(&self, fill: Fill, acts: Acts) -> Vec<Case> {
        let mut cases = Vec::new();
        for (rows, cols) in [
            (1, self.unit()),
            (3, 3 * self.unit()),
            (8, self.long()),
            (7, 512.max(self.unit()).next_multiple_of(self.unit())),
        ] {
            for sizes in [Sizes::Ones, self.exact(), Sizes::Ordinary] {
                cases.extend((0..4).map(|_| Case::new(self.recipe(rows, cols, fill, acts, sizes))));
            }
        }
        cases
    }

    fn zeros(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for cols in [self.unit(), self.long()] {
            for (fill, acts) in
                [(Fill::Zero, Acts::Random), (Fill::Random, Acts::Zero), (Fill::Zero, Acts::Zero)]
            {
                cases.extend([1, 4].map(|rows| Case::new(self.recipe(rows, cols, fill, acts, self.exact()))));
            }
            cases.push(Case::new(self.recipe(0, cols, Fill::Random, Acts::Random, Sizes::Ones)));
        }
        cases
    }

    fn tokens(&self) -> Vec<Case> {
        let most = self.declared.max_tokens.min(64);
        let mut counts = vec![1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, most];
        counts.retain(|count| *count <= most);
        counts.sort_unstable();
        counts.dedup();
        let mut cases = Vec::new();
        for tokens in counts {
            for (rows, cols) in [
                (1, self.unit()),
                (5, 3 * self.unit()),
                (4, 512.max(self.unit()).next_multiple_of(self.unit())),
            ] {
                for (fill, acts, sizes) in [
                    (Fill::Revealing, Acts::Revealing, Sizes::Ones),
                    (Fill::Random, Acts::Random, self.exact()),
                    (Fill::High, Acts::Low, Sizes::Ones),
                ] {
                    cases.push(Case::new(Recipe { tokens, ..self.recipe(rows, cols, fill, acts, sizes) }));
                }
            }
        }
        cases
    }

    fn padding(&self) -> Vec<Case> {
        let tokens = self.declared.max_tokens.min(3);
        let mut cases = Vec::new();
        for gap in [1, 2, 31, 64] {
            for cols in self.lengths().into_iter().filter(|cols| *cols <= 1100) {
                let recipe = self.recipe(4, cols, Fill::Random, Acts::Random, self.exact());
                cases.push(Case { gap, ..Case::new(Recipe { tokens, ..recipe }) });
            }
        }
        cases
    }

    fn guard_before(&self) -> Vec<Case> {
        let mut cases = self.revealing();
        cases.iter_mut().for_each(|case| case.wall = Wall::Before);
        cases
    }

    fn alignment(&self) -> Vec<Case> {
        let declared = self.declared;
        let aligns = [declared.weights_align, declared.activations_align, declared.out_align];
        let mut cases = Vec::new();
        for buffer in 0..3 {
            for offset in (0..64.max(aligns[buffer])).step_by(aligns[buffer]) {
                let mut offsets = [0; 3];
                offsets[buffer] = offset;
                let recipe = self.recipe(
                    3,
                    512.max(self.unit()).next_multiple_of(self.unit()),
                    Fill::Random,
                    Acts::Random,
                    self.exact(),
                );
                cases.push(Case { wall: Wall::Offset(0), offsets, ..Case::new(recipe) });
            }
        }
        cases
    }
}

fn lcm(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b) * b
}
