//! The live view.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Modifier, Style},
    text::Line,
    widgets::{Row, Table, TableState},
};

use crate::{
    observe::Sample,
    top::{
        Args,
        rows::{Order, Rows},
    },
};

const HELP: &str = "q quit  s sort  / filter  up, down, PgUp, PgDn scroll  space pause";

/// Shows it until `q` is pressed.
///
/// # Errors
///
/// Where the counts cannot be read, or the terminal cannot be used.
pub fn run(args: &Args, read: impl Fn() -> Result<(Instant, Sample)>) -> Result<()> {
    let before = read()?;
    let mut view = View {
        order: args.sort,
        filter: args.filter.clone().unwrap_or_default(),
        ..View::default()
    };
    let mut terminal =
        ratatui::try_init().context("the terminal cannot be used; --once prints text")?;
    let shown = view.show(&mut terminal, args.interval, before, read);
    ratatui::restore();
    shown
}

struct View {
    order: Order,
    filter: String,
    /// Whether the filter is being typed.
    typing: bool,
    paused: bool,
    table: TableState,
    rows: Rows,
}

impl Default for View {
    fn default() -> Self {
        Self {
            order: Order::Packets,
            filter: String::new(),
            typing: false,
            paused: false,
            table: TableState::default(),
            rows: Rows::default(),
        }
    }
}

impl View {
    fn show(
        &mut self,
        terminal: &mut DefaultTerminal,
        interval: Duration,
        mut before: (Instant, Sample),
        read: impl Fn() -> Result<(Instant, Sample)>,
    ) -> Result<()> {
        let mut due = Instant::now() + interval;
        let mut all = Rows::between(&before, &before);
        loop {
            self.rows = all.clone();
            self.rows.filter(&self.filter);
            self.rows.sort(self.order);
            terminal.draw(|frame| self.draw(frame))?;
            if event::poll(due.saturating_duration_since(Instant::now()))? {
                if self.quits(&event::read()?) {
                    return Ok(());
                }
                continue;
            }
            due = Instant::now() + interval;
            if !self.paused {
                let now = read()?;
                all = Rows::between(&before, &now);
                before = now;
            }
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let [top, middle, bottom] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let mut title = format!("egress top, by {}", self.order.word());
        if self.paused {
            title.push_str(", paused");
        }
        frame.render_widget(Line::from(title), top);
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let rows = self.rows.0.iter().map(|row| {
            // Names may hold any byte but a slash and white space.
            Row::new(row.cells().map(|cell| cell.replace(char::is_control, "?")))
        });
        let widths = [
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(12),
            Constraint::Percentage(25),
            Constraint::Fill(1),
        ];
        let table = Table::new(rows, widths)
            .header(Row::new(Rows::HEADING).style(bold))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, middle, &mut self.table);
        let last = match (self.typing, self.filter.is_empty()) {
            (true, _) => format!("filter: {}_", self.filter),
            (false, false) => format!("filter: {}   {HELP}", self.filter),
            (false, true) => HELP.to_owned(),
        };
        frame.render_widget(Line::from(last), bottom);
    }

    /// Does what a key says; whether that is to end.
    fn quits(&mut self, event: &Event) -> bool {
        let Event::Key(key) = event else { return false };
        if key.kind != KeyEventKind::Press {
            return false;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return true;
        }
        if self.typing {
            match key.code {
                KeyCode::Char(c) => self.filter.push(c),
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.filter.clear();
                    self.typing = false;
                }
                _ => {}
            }
            return false;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Down => self.table.scroll_down_by(1),
            KeyCode::Up => self.table.scroll_up_by(1),
            KeyCode::PageDown => self.table.scroll_down_by(20),
            KeyCode::PageUp => self.table.scroll_up_by(20),
            KeyCode::Home => self.table.select_first(),
            KeyCode::End => self.table.select_last(),
            _ => {}
        }
        false
    }
}
