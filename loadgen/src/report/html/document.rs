//! A page of verdict, figures, charts and tables as one file that needs nothing else: no network, no font, no script
//! to be readable. Knows nothing of runs.

use std::fmt::Write;

const STYLE: &str = include_str!("style.css");
/// Shows a chart's column under the pointer at once and on touch screens; without it the browser's own tooltips do.
const SCRIPT: &str = include_str!("tips.js");

/// How good the news are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Good,
    /// To be read with care.
    Doubtful,
    Bad,
}

/// The whole page, from the top.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) title: String,
    /// What this is a report of, in a sentence.
    pub(crate) subtitle: String,
    pub(crate) level: Level,
    pub(crate) verdict: String,
    /// Sentences that belong to the verdict.
    pub(crate) reasons: Vec<String>,
    pub(crate) tiles: Vec<Tile>,
    pub(crate) sections: Vec<Section>,
    /// Who made the page.
    pub(crate) footer: String,
}

/// A figure that is seen first.
#[derive(Clone, Debug)]
pub(crate) struct Tile {
    pub(crate) label: String,
    pub(crate) value: String,
    pub(crate) note: String,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Section {
    pub(crate) heading: String,
    /// How to read what follows.
    pub(crate) intro: String,
    pub(crate) blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
pub(crate) enum Block {
    /// Finished figures of the chart modules, side by side where there is room.
    Charts(Vec<String>),
    /// The first column is text, the others are figures.
    Table { head: Vec<String>, rows: Vec<Vec<String>> },
    /// Names and what they are.
    Facts(Vec<(String, String)>),
    /// A long text behind a heading that opens it.
    Folded { heading: String, text: String },
}

impl Document {
    pub(crate) fn render(&self) -> String {
        let mut out = String::with_capacity(64 * 1024);
        let title = escape(&self.title);
        let _ = write!(
            out,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <title>{title}</title>\n<style>{STYLE}</style></head>\n<body><main>\n\
             <header><h1>{title}</h1><p>{}</p></header>\n",
            escape(&self.subtitle)
        );
        self.verdict(&mut out);
        self.tiles(&mut out);
        for section in &self.sections {
            section.render(&mut out);
        }
        let _ = write!(
            out,
            "<footer>{}</footer>\n</main><div id=\"tip\" hidden></div>\n<script>{SCRIPT}</script></body></html>\n",
            escape(&self.footer)
        );
        out
    }

    fn verdict(&self, out: &mut String) {
        let (class, sign) = match self.level {
            Level::Good => ("good", "✓"),
            Level::Doubtful => ("doubtful", "!"),
            Level::Bad => ("bad", "✕"),
        };
        let _ = write!(
            out,
            "<section class=\"verdict {class}\"><span class=\"sign\" aria-hidden=\"true\">{sign}</span><div><strong>{}</strong>",
            escape(&self.verdict)
        );
        if !self.reasons.is_empty() {
            out.push_str("<ul>");
            for reason in &self.reasons {
                let _ = write!(out, "<li>{}</li>", escape(reason));
            }
            out.push_str("</ul>");
        }
        out.push_str("</div></section>\n");
    }

    fn tiles(&self, out: &mut String) {
        if self.tiles.is_empty() {
            return;
        }
        out.push_str("<dl class=\"tiles\">");
        for tile in &self.tiles {
            let _ = write!(
                out,
                "<div><dt>{}</dt><dd>{}</dd><dd class=\"note\">{}</dd></div>",
                escape(&tile.label),
                escape(&tile.value),
                escape(&tile.note)
            );
        }
        out.push_str("</dl>\n");
    }
}

impl Section {
    fn render(&self, out: &mut String) {
        let _ = write!(out, "<section><h2>{}</h2>", escape(&self.heading));
        if !self.intro.is_empty() {
            let _ = write!(out, "<p>{}</p>", escape(&self.intro));
        }
        for block in &self.blocks {
            block.render(out);
        }
        out.push_str("</section>\n");
    }
}

impl Block {
    fn render(&self, out: &mut String) {
        match self {
            Block::Charts(figures) => {
                let _ = write!(out, "<div class=\"charts\">{}</div>", figures.concat());
            }
            Block::Table { head, rows } => {
                out.push_str("<div class=\"scroll\"><table><thead><tr>");
                cells(out, "th", head);
                out.push_str("</tr></thead><tbody>");
                for row in rows {
                    out.push_str("<tr>");
                    cells(out, "td", row);
                    out.push_str("</tr>");
                }
                out.push_str("</tbody></table></div>");
            }
            Block::Facts(facts) => {
                out.push_str("<dl class=\"facts\">");
                for (name, value) in facts {
                    let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
                }
                out.push_str("</dl>");
            }
            Block::Folded { heading, text } => {
                let _ = write!(
                    out,
                    "<details><summary>{}</summary><pre>{}</pre></details>",
                    escape(heading),
                    escape(text)
                );
            }
        }
    }
}

fn cells(out: &mut String, element: &str, row: &[String]) {
    for cell in row {
        let _ = write!(out, "<{element}>{}</{element}>", escape(cell));
    }
}

/// Text as it may stand in an element or in a quoted attribute. Names and remarks come from brokers: none of them may
/// become markup. Control characters, which no HTML file may hold, become visible.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every element is closed in the order it was opened. Enough of HTML for what is written here.
    pub(crate) fn assert_well_formed(page: &str) {
        const NEVER_CLOSED: [&str; 2] = ["meta", "!doctype"];
        let body = page.find("<style>").map_or(page.to_owned(), |from| {
            let to = page.find("</style>").expect("style is closed");
            let without_style = format!("{}{}", &page[..from], &page[to + 8..]);
            let from = without_style.find("<script>").expect("there is a script");
            let to = without_style.find("</script>").expect("script is closed");
            format!("{}{}", &without_style[..from], &without_style[to + 9..])
        });
        let mut open: Vec<&str> = Vec::new();
        for tag in body.split('<').skip(1) {
            let (inside, _) = tag.split_once('>').unwrap_or_else(|| panic!("tag without end: {tag}"));
            let name = inside.split([' ', '/']).find(|part| !part.is_empty()).unwrap_or_default();
            if inside.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "in <{inside}>");
            } else if !inside.ends_with('/') && !NEVER_CLOSED.contains(&name) {
                open.push(name);
            }
        }
        assert_eq!(open, Vec::<&str>::new());
    }

    const HOSTILE: &str = "</script><img src=x onerror='alert(1)'>\"&\u{1b}[31m";

    fn document(text: &str) -> Document {
        let text = text.to_owned();
        Document {
            title: text.clone(),
            subtitle: text.clone(),
            level: Level::Bad,
            verdict: text.clone(),
            reasons: vec![text.clone()],
            tiles: vec![Tile { label: text.clone(), value: text.clone(), note: text.clone() }],
            sections: vec![Section {
                heading: text.clone(),
                intro: text.clone(),
                blocks: vec![
                    Block::Charts(vec!["<figure></figure>".into()]),
                    Block::Table { head: vec![text.clone()], rows: vec![vec![text.clone()]] },
                    Block::Facts(vec![(text.clone(), text.clone())]),
                    Block::Folded { heading: text.clone(), text: text.clone() },
                ],
            }],
            footer: text,
        }
    }

    #[test]
    fn every_kind_of_block_is_well_formed() {
        assert_well_formed(&document("plain").render());
    }

    #[test]
    fn no_text_becomes_markup_wherever_it_stands() {
        let page = document(HOSTILE).render();
        assert_well_formed(&page);
        assert!(!page.contains("<img") && !page.contains('\u{1b}'));
        assert_eq!(page.matches("&lt;img src=x onerror=&#39;alert(1)&#39;&gt;").count(), 17);
    }

    #[test]
    fn the_page_asks_for_nothing_from_outside() {
        let page = document("plain").render();
        for outside in ["http:", "https:", "//", "@import", "url(", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
