//! Flame graphs as SVG, drawn by inferno 0.12 (<https://docs.rs/inferno>), with the outermost frames on
//! top as py-spy draws them; also differential ones, of two profiles.
//!
//! What is too narrow to see or too deep to scroll to is given to the frame below it before inferno
//! sees it, so that neither memory nor the file grow with the number of stacks.

use std::io::{BufWriter, Write};

use inferno::flamegraph::color::{MultiPalette, Palette};
use inferno::flamegraph::{self, Direction, TextTruncateDirection};

use super::collapsed::{Side, StackTree, unit_ns};
use super::{ExportOptions, Exporter, Loss};
use crate::error::{Error, Result};
use crate::profile::{Origin, Profile};
use crate::units;

/// Stacks drawn at most this deep: 16 pixels each make 6,400 pixels, some eight screens.
const MAX_DEPTH: u32 = 400;
/// Boxes drawn at most, about 6 MB of SVG, which browsers still pan smoothly.
const MAX_BOXES: usize = 20_000;
/// Shares of the whole, in percent, below which frames are left out; the first that leaves no more than
/// [`MAX_BOXES`] is taken. The lowest is inferno's own, an eighth of a pixel.
const MIN_WIDTHS: [f64; 7] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];
/// Longer titles leave the picture.
const MAX_TITLE_CHARS: usize = 120;

/// Writes flame graphs.
#[derive(Debug, Clone, Copy)]
pub struct FlameGraph;

impl Exporter for FlameGraph {
    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        let (stacks, mut losses) = stacks(&[(profile, Side::Only)], options);
        let drawing = Drawing::of(&stacks, [1.0, 0.0], &mut losses);
        let unit_ns = unit_ns(&[profile]);
        let lines = drawing.lines(|own| (own[0] / unit_ns).to_string());
        let mut settings = settings(profile, unit_ns, title(profile, options), subtitle(profile));
        draw(&mut settings, &lines, out)?;
        Ok(losses)
    }
}

/// How two profiles are compared.
#[derive(Debug, Clone, Default)]
pub struct DifferentialOptions {
    /// Which samples count, of both.
    pub export: ExportOptions,
    /// Scale the old profile to the total of the new one: shows shifts where the recordings differ in
    /// length.
    pub normalise: bool,
    /// What the profiles are called where no command is known: the old one, the new one.
    pub names: [String; 2],
}

/// Writes a flame graph of `new`, with frames that have more time than in `old` red and those that have
/// less blue.
pub fn write_differential(
    old: &Profile,
    new: &Profile,
    options: &DifferentialOptions,
    out: &mut dyn Write,
) -> Result<Vec<Loss>> {
    let (stacks, mut losses) = stacks(&[(old, Side::Only), (new, Side::New)], &options.export);
    let total = |side: usize| stacks.nodes.iter().map(|node| node.own[side]).sum::<u64>() as f64;
    let (old_total, new_total) = (total(0), total(1));
    let scale = if options.normalise && old_total > 0.0 {
        new_total / old_total
    } else {
        1.0
    };
    let drawing = Drawing::of(&stacks, [scale, 1.0], &mut losses);
    let unit_ns = unit_ns(&[old, new]);
    let lines = drawing.lines(|own| {
        let old = own[0] as f64 * scale / unit_ns as f64;
        format!("{} {}", old.round() as u64, own[1] / unit_ns)
    });
    let [old_name, new_name] = &options.names;
    let named = |profile: &Profile, name: &String| match profile.meta.command.as_str() {
        "" if !name.is_empty() => name.clone(),
        _ => command(profile),
    };
    let title = shortened(&format!(
        "biopsy: {} → {}",
        named(old, old_name),
        named(new, new_name)
    ));
    let scaled = if options.normalise {
        ", the older one scaled to it"
    } else {
        ""
    };
    let subtitle = format!(
        "red: more time than before, blue: less; widths are the newer profile's{scaled}{}",
        if old.exact.is_some() || new.exact.is_some() {
            "; stacks estimated from caller edges"
        } else {
            ""
        }
    );
    draw(&mut settings(new, unit_ns, title, subtitle), &lines, out)?;
    Ok(losses)
}

/// The stacks of all `profiles`, not too deep to be drawn.
fn stacks(profiles: &[(&Profile, Side)], options: &ExportOptions) -> (StackTree, Vec<Loss>) {
    let mut losses = Vec::new();
    let trees: Vec<_> = profiles
        .iter()
        .map(|(profile, side)| {
            let (tree, estimated) = profile.tree(&options.filter);
            if estimated && losses.is_empty() {
                losses.push("stacks are estimated from caller edges".to_string());
            }
            (*profile, tree, *side)
        })
        .collect();
    let build = |fold_recursion| {
        let mut stacks = StackTree::limited(MAX_DEPTH, fold_recursion);
        for (profile, tree, side) in &trees {
            stacks.add(profile, tree, options, *side);
        }
        stacks
    };
    let mut stacks = build(false);
    if stacks.was_cut {
        losses.push(format!(
            "stacks are deeper than {MAX_DEPTH}: direct recursion is drawn as one frame"
        ));
        stacks = build(true);
        if stacks.was_cut {
            losses.push(format!("frames deeper than {MAX_DEPTH} are not drawn"));
        }
    }
    (stacks, losses)
}

/// The stacks that are wide enough, as a forest in the order of drawing.
struct Drawing<'a> {
    stacks: &'a StackTree,
    kept: Vec<bool>,
    own: Vec<[u64; 2]>,
}

impl<'a> Drawing<'a> {
    /// `scale`: what a nanosecond of each side counts for when widths are compared.
    fn of(stacks: &'a StackTree, scale: [f64; 2], losses: &mut Vec<Loss>) -> Self {
        let mut own: Vec<[u64; 2]> = stacks.nodes.iter().map(|node| node.own).collect();
        let mut totals = own.clone();
        for at in (0..totals.len()).rev() {
            if let Some(parent) = stacks.nodes[at].parent {
                let total = totals[at];
                add(&mut totals[parent as usize], total);
            }
        }
        let width = |sides: [u64; 2]| (sides[0] as f64 * scale[0]).max(sides[1] as f64 * scale[1]);
        let whole = own.iter().fold([0u64; 2], |mut sum, own| {
            add(&mut sum, *own);
            sum
        });
        let kept_at = |percent: f64| {
            let least = (width(whole) * percent / 100.0).max(f64::MIN_POSITIVE);
            totals.iter().map(move |&total| width(total) >= least)
        };
        let percent = MIN_WIDTHS
            .into_iter()
            .find(|&percent| kept_at(percent).filter(|&kept| kept).count() <= MAX_BOXES)
            .unwrap_or(MIN_WIDTHS[MIN_WIDTHS.len() - 1]);
        if percent > MIN_WIDTHS[0] {
            losses.push(format!("frames narrower than {percent} % are not drawn"));
        }
        let kept: Vec<bool> = kept_at(percent).collect();
        // A frame is never wider than its parent, so that what is left out ends at a frame that is kept.
        for at in (0..own.len()).rev() {
            if let (false, Some(parent)) = (kept[at], stacks.nodes[at].parent) {
                let folded = std::mem::take(&mut own[at]);
                add(&mut own[parent as usize], folded);
            }
        }
        Drawing { stacks, kept, own }
    }

    /// The lines for inferno, last drawn first (see [`settings`]).
    fn lines(&self, numbers: impl Fn([u64; 2]) -> String) -> Vec<String> {
        let mut roots = Vec::new();
        let mut children: Vec<Vec<u32>> = vec![Vec::new(); self.kept.len()];
        for (at, node) in self.stacks.nodes.iter().enumerate() {
            if self.kept[at] {
                match node.parent {
                    Some(parent) => children[parent as usize].push(at as u32),
                    None => roots.push(at as u32),
                }
            }
        }
        let label = |&at: &u32| &self.stacks.labels[self.stacks.nodes[at as usize].label as usize];
        let mut lines = Vec::new();
        let mut todo = roots;
        // Popped from the end: the first by name is drawn first, as in every flame graph.
        todo.sort_by(|a, b| label(b).cmp(label(a)));
        while let Some(at) = todo.pop() {
            let own = self.own[at as usize];
            if own != [0; 2] {
                let path: Vec<&str> = self.stacks.path(at as usize, usize::MAX).collect();
                lines.push(format!("{} {}", path.join(";"), numbers(own)));
            }
            let below = &mut children[at as usize];
            below.sort_by(|a, b| label(b).cmp(label(a)));
            todo.append(below);
        }
        lines.reverse();
        lines
    }
}

fn add(sum: &mut [u64; 2], more: [u64; 2]) {
    sum[0] = sum[0].saturating_add(more[0]);
    sum[1] = sum[1].saturating_add(more[1]);
}

fn settings<'a>(
    profile: &Profile,
    unit_ns: u64,
    title: String,
    subtitle: String,
) -> flamegraph::Options<'a> {
    let mut settings = flamegraph::Options::default();
    settings.title = title;
    settings.subtitle = Some(subtitle);
    let unit = match unit_ns {
        _ if profile.meta.unit_is_unknown() => "samples",
        1 => "ns",
        _ => "us",
    };
    settings.count_name = unit.to_string();
    settings.colors = Palette::Multi(MultiPalette::Python);
    // The same function has the same colour in every graph.
    settings.deterministic = true;
    settings.direction = Direction::Inverted;
    settings.text_truncate_direction = TextTruncateDirection::Right;
    settings.min_width = 0.0;
    // Takes the lines as they come, last first, where sorting them as text would tear a frame in two
    // when another one's name begins with its own.
    settings.flame_chart = true;
    settings
}

fn draw(
    settings: &mut flamegraph::Options<'_>,
    lines: &[String],
    out: &mut dyn Write,
) -> Result<()> {
    if lines.is_empty() {
        return write_empty(&settings.title, out)
            .map_err(|error| Error::write("the flame graph", &error));
    }
    let mut out = BufWriter::new(out);
    flamegraph::from_lines(settings, lines.iter().map(String::as_str), &mut out)
        .and_then(|()| out.flush())
        .map_err(|error| Error::write("the flame graph", &error))
}

/// A picture that says that there are no samples; the outside crate fails for want of lines.
fn write_empty(title: &str, out: &mut dyn Write) -> std::io::Result<()> {
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    let head = r#"<?xml version="1.0" encoding="UTF-8"?>
<svg version="1.1" width="1200" height="80" xmlns="http://www.w3.org/2000/svg">"#;
    let style = r#"font-family="monospace" text-anchor="middle" x="600""#;
    writeln!(
        out,
        "{head}\n<text {style} y=\"24\" font-size=\"17\">{title}</text>\n\
         <text {style} y=\"54\" font-size=\"12\">no samples</text>\n</svg>"
    )?;
    out.flush()
}

fn command(profile: &Profile) -> String {
    match profile.meta.command.as_str() {
        "" if profile.meta.pid != 0 => format!("process {}", profile.meta.pid),
        "" => "profile".to_string(),
        command => command.to_string(),
    }
}

fn title(profile: &Profile, options: &ExportOptions) -> String {
    let named = match options.title(profile) {
        "" => command(profile),
        title => title.to_string(),
    };
    shortened(&format!("biopsy: {named}"))
}

/// Printable, not too long, and without the two characters that XML forbids and `printable` lets pass.
fn shortened(text: &str) -> String {
    let cut: String = text.chars().take(MAX_TITLE_CHARS).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{dots}", units::printable(&cut)).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

/// What the graph is drawn from, as the note above the table says it.
fn subtitle(profile: &Profile) -> String {
    let meta = &profile.meta;
    let seconds = meta.duration_us as f64 / 1e6;
    let mut text = match meta.origin {
        Origin::Exact => {
            "estimated picture: exact times, stacks guessed from who called whom".to_string()
        }
        Origin::Collapsed => {
            let samples = units::several(meta.samples, "sample");
            format!("{samples} of collapsed stacks")
        }
        Origin::Sampled => {
            let rate = if meta.rate_hz > 0.0 {
                format!("at {} Hz", meta.rate_hz)
            } else {
                "at full speed".to_string()
            };
            format!(
                "sampled {rate} for {seconds:.2} s: {}, {} given up",
                units::several(meta.samples, "sample"),
                meta.given_up
            )
        }
    };
    if meta.approximate_stacks {
        text.push_str("; approximate stacks");
    }
    text.push_str(&units::printable(&meta.shown()));
    text
}
