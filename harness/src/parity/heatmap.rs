//! A picture of an explanation: error by layer and operation, as SVG.

use super::explain::{Cell, Explanation};
use assay_engine::model::NodeKind;
use std::fmt::Write as _;

const CELL: usize = 22;
const LEFT: usize = 118;
const TOP: usize = 62;
const GAP: usize = 40;

/// Two panels, operations downwards and layers to the right: what each operation does on the reference's own input, and the engine's own
/// pass with all that came before. Colours follow `log10` of the normalised mean squared error; what was not given is white with a stroke,
/// and an operation that is wrong on its own has a frame.
pub fn svg(explanation: &Explanation, title: &str) -> String {
    let kinds: Vec<NodeKind> = NodeKind::ALL
        .into_iter()
        .filter(|kind| explanation.cells.iter().any(|cell| cell.operation == kind.name()))
        .collect();
    let layers = explanation.cells.iter().filter_map(|cell| cell.layer).max().map_or(1, |last| last + 1);
    let panel = layers * CELL;
    let (width, height) = (LEFT + 2 * panel.max(220) + GAP + 20, TOP + kinds.len() * CELL + 64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"12\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    for (p, name) in ["each on the reference's input", "the engine's own pass"].into_iter().enumerate() {
        let x0 = LEFT + p * (panel.max(220) + GAP);
        put(&mut out, x0, TOP - 22, "#000", name);
        for layer in (0..layers).step_by(layers.div_ceil(12).max(1)) {
            put(&mut out, x0 + layer * CELL + 6, TOP - 6, "#555", &layer.to_string());
        }
        for (row, kind) in kinds.iter().enumerate() {
            let y = TOP + row * CELL;
            if p == 0 {
                put(&mut out, 12, y + 15, "#000", kind.name());
            }
            for cell in explanation.cells.iter().filter(|cell| cell.operation == kind.name()) {
                square(&mut out, x0 + cell.layer.unwrap_or(0) * CELL, y, cell, p == 0);
            }
        }
    }
    legend(&mut out, TOP + kinds.len() * CELL + 24);
    out.push_str("</svg>\n");
    out
}

fn square(out: &mut String, x: usize, y: usize, cell: &Cell, alone: bool) {
    let value = if alone { cell.alone } else { cell.whole };
    let fill = value.map_or_else(|| "#fff".to_owned(), colour);
    let (stroke, thick) = if alone && cell.wrong { ("#000", 2) } else { ("#ddd", 1) };
    let said = value.map_or_else(|| "not given".to_owned(), |value| format!("NMSE {value:.3e}"));
    // Writing to a string cannot fail.
    _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{0}\" height=\"{0}\" fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"{thick}\"><title>{1}: {said}</title></rect>",
        CELL - 2,
        escaped(&cell.name)
    );
    if value.is_none() {
        _ = writeln!(out, "<path d=\"M{x} {} l{1} -{1}\" stroke=\"#ccc\"/>", y + CELL - 2, CELL - 2);
    }
}

fn legend(out: &mut String, y: usize) {
    put(out, 12, y + 15, "#000", "log10 NMSE");
    for (i, exponent) in (-14..=0).step_by(2).enumerate() {
        let x = LEFT + i * 44;
        let fill = colour(10_f64.powi(exponent));
        _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"20\" height=\"20\" fill=\"{fill}\" stroke=\"#ddd\"/>"
        );
        put(out, x + 22, y + 15, "#555", &exponent.to_string());
    }
}

fn put(out: &mut String, x: usize, y: usize, fill: &str, text: &str) {
    _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" fill=\"{fill}\">{}</text>", escaped(text));
}

/// Pale blue for what roundings do, red for what they do not: `log10` from −14 to 0.
fn colour(nmse: f64) -> String {
    let t = if nmse > 0.0 { ((nmse.log10() + 14.0) / 14.0).clamp(0.0, 1.0) } else { 0.0 };
    let stops = [(232.0, 240.0, 250.0), (120.0, 170.0, 220.0), (250.0, 220.0, 120.0), (200.0, 30.0, 30.0)];
    let place = t * 3.0;
    let (at, part) = ((place as usize).min(2), place - (place as usize).min(2) as f64);
    let ((r0, g0, b0), (r1, g1, b1)) = (stops[at], stops[at + 1]);
    let mix = |a: f64, b: f64| (a + (b - a) * part).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(r0, r1), mix(g0, g1), mix(b0, b1))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_square_for_every_cell_and_a_frame_for_what_is_wrong() {
        let cell = |name: &str, operation, layer, alone| Cell {
            name: name.to_owned(),
            layer,
            operation,
            given: true,
            whole: Some(1e-3),
            alone,
            allowed: 1e-9,
            wrong: alone.is_some_and(|alone| alone > 1e-9),
            worst: None,
        };
        let cells = vec![
            cell("embedding", "embedding", None, Some(0.0)),
            cell("blk.0.q", "q", Some(0), Some(1e-3)),
            cell("blk.1.q", "q", Some(1), None),
        ];
        let text = svg(&Explanation { cells, tokens: 1, logits: Vec::new() }, "a < b");
        assert_eq!(text.matches("<title>").count(), 6);
        assert_eq!(text.matches("stroke-width=\"2\"").count(), 1);
        assert!(
            text.contains("a &lt; b") && text.contains("blk.1.q: not given") && text.ends_with("</svg>\n")
        );
        assert_ne!(colour(0.0), colour(1.0));
    }
}
