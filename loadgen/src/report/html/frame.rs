//! What all charts share: the sheet they are drawn on, axes, legend, and the columns that answer a pointer.

use std::fmt::Write;

use super::document::escape;
use super::scale::Scale;

/// Colours and dashes told apart; further lines begin again from the first.
pub(super) const STYLES: usize = 6;

/// A drawing under construction. Measures are in its own units, about a pixel on a wide screen.
pub(super) struct Frame {
    svg: String,
    width: f64,
    height: f64,
}

const LEFT: f64 = 74.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 52.0;

impl Frame {
    /// `label` says for those who cannot see it what is drawn.
    pub(super) fn new(width: f64, height: f64, label: &str) -> Frame {
        let svg =
            format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">", escape(label));
        Frame { svg, width, height }
    }

    /// Where a place on the horizontal axis is drawn.
    pub(super) fn x(&self, place: f64) -> f64 {
        LEFT + (self.width - LEFT - RIGHT) * place
    }

    /// Where a place on the vertical axis is drawn; the low end is at the bottom.
    pub(super) fn y(&self, place: f64) -> f64 {
        TOP + (self.height - TOP - BOTTOM) * (1.0 - place)
    }

    pub(super) fn left_axis(&mut self, scale: &Scale, name: &str, write: impl Fn(f64) -> String) {
        let (from, to) = (self.x(0.0), self.x(1.0));
        for tick in scale.ticks(5) {
            let y = self.y(scale.place(tick));
            self.add(format_args!("<path class=\"g\" d=\"M{from:.1} {y:.1}H{to:.1}\"/>"));
            let text = escape(&write(tick));
            self.add(format_args!(
                "<text class=\"e\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
                from - 7.0,
                y + 4.0
            ));
        }
        self.add(format_args!("<text class=\"n\" x=\"6\" y=\"16\">{}</text>", escape(name)));
    }

    /// `ticks` are places and their labels.
    pub(super) fn bottom_axis(&mut self, ticks: &[(f64, String)], name: &str) {
        let (low, high) = (self.y(0.0), self.y(1.0));
        for (place, text) in ticks {
            let x = self.x(*place);
            self.add(format_args!("<path class=\"g\" d=\"M{x:.1} {low:.1}V{high:.1}\"/>"));
            let anchor = if *place > 0.97 { "e" } else { "m" };
            self.add(format_args!(
                "<text class=\"{anchor}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                if anchor == "e" { x + RIGHT - 4.0 } else { x },
                low + 18.0,
                escape(text)
            ));
        }
        let (from, to) = (self.x(0.0), self.x(1.0));
        self.add(format_args!("<path class=\"a\" d=\"M{from:.1} {low:.1}H{to:.1}\"/>"));
        let y = self.height - 10.0;
        self.add(format_args!(
            "<text class=\"m n\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            self.x(0.5),
            escape(name)
        ));
    }

    /// A line through points on the drawing; gaps interrupt it, and a point between two gaps is a dot.
    pub(super) fn line(&mut self, class: &str, points: impl IntoIterator<Item = Option<(f64, f64)>>) {
        let points: Vec<_> = points.into_iter().collect();
        let (mut path, mut dots) = (String::new(), String::new());
        for piece in points.split(|point| point.is_none()) {
            match piece {
                // A step of nothing is seen as a dot: its ends are round.
                [Some((x, y))] => _ = write!(dots, "M{x:.1} {y:.1}h0"),
                piece => {
                    for (at, (x, y)) in piece.iter().flatten().enumerate() {
                        let _ = write!(path, "{}{x:.1} {y:.1}", if at == 0 { "M" } else { "L" });
                    }
                }
            }
        }
        if !path.is_empty() {
            self.add(format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
        }
        if !dots.is_empty() {
            self.add(format_args!("<path class=\"{class} dot\" d=\"{dots}\"/>"));
        }
    }

    /// A stretch of the horizontal axis that is to be told apart, with its name.
    pub(super) fn band(&mut self, from: f64, to: f64, name: &str) {
        let (left, right) = (self.x(from), self.x(to));
        if right - left < 1.0 {
            return;
        }
        let (top, height) = (self.y(1.0), self.y(0.0) - self.y(1.0));
        self.add(format_args!(
            "<rect class=\"w\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
            right - left
        ));
        self.add(format_args!(
            "<text class=\"n\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left + 5.0,
            top + 15.0,
            escape(name)
        ));
    }

    /// Centred words in place of what there is none of.
    pub(super) fn empty(&mut self, words: &str) {
        let (x, y) = (self.x(0.5), self.y(0.5));
        self.add(format_args!("<text class=\"m n\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(words)));
    }

    /// Columns over the whole height, each with what it says to a pointer; without scripts the browser shows it.
    pub(super) fn tips(&mut self, columns: impl IntoIterator<Item = (f64, f64, String)>) {
        self.svg.push_str("<g class=\"tips\">");
        let (top, height) = (self.y(1.0), self.y(0.0) - self.y(1.0));
        for (from, to, text) in columns {
            let (left, right) = (self.x(from), self.x(to));
            let _ = write!(
                self.svg,
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{}</title></rect>",
                (right - left).max(0.5),
                escape(&text)
            );
        }
        self.svg.push_str("</g>");
    }

    pub(super) fn add(&mut self, part: std::fmt::Arguments<'_>) {
        let _ = self.svg.write_fmt(part);
    }

    /// The figure: heading, legend, drawing. `wide` figures take the whole width of the page.
    pub(super) fn finish(
        mut self,
        heading: &str,
        caption: &str,
        legend: &[(String, &str)],
        wide: bool,
    ) -> String {
        self.svg.push_str("</svg>");
        let mut out = String::new();
        let class = if wide { " class=\"wide\"" } else { "" };
        let _ = write!(out, "<figure{class}><figcaption><b>{}</b>", escape(heading));
        if !caption.is_empty() {
            let _ = write!(out, " <span>{}</span>", escape(caption));
        }
        out.push_str("</figcaption>");
        if !legend.is_empty() {
            out.push_str("<ul class=\"legend\">");
            for (name, class) in legend {
                let _ = write!(
                    out,
                    "<li><svg viewBox=\"0 0 34 10\"><path class=\"{class}\" d=\"M1 5H33\"/></svg>{}</li>",
                    escape(name)
                );
            }
            out.push_str("</ul>");
        }
        let _ = writeln!(out, "<div class=\"scroll\">{}</div></figure>", self.svg);
        out
    }
}
