//! Tokens that are found in text as they stand, before anything is split or merged.

use super::vocabulary::{Kind, Vocabulary};

/// What becomes of the text of a control token (`<|eot_id|>`) inside a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// It is text like any other; only user-defined tokens are found. For text of strangers.
    Plain,
    /// It is the token. For prompts that somebody wrote with the tokens in mind, such as those of a chat template.
    Parse,
}

#[derive(Debug)]
pub(super) struct Specials(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    id: u32,
    text: String,
    /// Found in plain text too.
    user_defined: bool,
    /// Takes the white space after it with it.
    strips: bool,
}

/// Part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'t> {
    Text(&'t str),
    Token(u32),
}

impl Specials {
    /// `phi3`: tokens take white space with them as those of Phi-3 do; llama.cpp goes by the model's name as well.
    pub(super) fn new(vocabulary: &Vocabulary, phi3: bool) -> Specials {
        let special = |kind| matches!(kind, Kind::Control | Kind::UserDefined | Kind::Unknown);
        let all = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0..);
        let found = all.filter(|((text, kind), _)| special(**kind) && !text.is_empty());
        let mut entries: Vec<Entry> = found
            .map(|((text, kind), id)| Entry {
                id,
                text: text.clone(),
                user_defined: *kind == Kind::UserDefined,
                strips: phi3 && !["<unk>", "<s>", "<|endoftext|>"].contains(&text.as_str()),
            })
            .collect();
        // The longest are looked for first, each in what the ones before left.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.text.len()));
        Specials(entries)
    }

    pub(super) fn split<'t>(&self, text: &'t str, special: Special) -> Vec<Part<'t>> {
        let mut parts = vec![Part::Text(text)];
        for entry in self.0.iter().filter(|entry| entry.user_defined || special == Special::Parse) {
            if !text.contains(&entry.text) {
                continue;
            }
            let mut finer = Vec::with_capacity(parts.len());
            for part in parts {
                match part {
                    Part::Text(text) => entry.split(text, &mut finer),
                    Part::Token(_) => finer.push(part),
                }
            }
            parts = finer;
        }
        parts.retain(|part| *part != Part::Text(""));
        parts
    }
}

impl Entry {
    fn split<'t>(&self, mut text: &'t str, parts: &mut Vec<Part<'t>>) {
        while let Some((before, after)) = text.split_once(&self.text) {
            parts.extend([Part::Text(before), Part::Token(self.id)]);
            let white = |c| matches!(c, ' ' | '\t'..='\r');
            text = if self.strips { after.trim_start_matches(white) } else { after };
        }
        parts.push(Part::Text(text));
    }
}
