//! Whole texts: commands and what stands between them.

use super::{Parsed, Parser};
use crate::ast;
use crate::lex::{Punct, TokenKind};

impl Parser<'_, '_> {
    /// Every command of the text.
    pub(super) fn script(&mut self, commands: &mut Vec<ast::Command>) {
        loop {
            self.skip_separators();
            if self.token.kind == TokenKind::End {
                return;
            }
            if self.line(commands).is_err() {
                self.recover(0);
                if self.at(Punct::CloseBrace) {
                    self.advance();
                }
            }
        }
    }

    fn line(&mut self, commands: &mut Vec<ast::Command>) -> Parsed<()> {
        if self.common(commands)? {
            return Ok(());
        }
        let start = self.token.span;
        let kind = self.command()?;
        let span = self.since(start);
        if !matches!(
            self.token.kind,
            TokenKind::Newline | TokenKind::End | TokenKind::Punct(Punct::Semicolon)
        ) {
            return self.unexpected(&["newline", "semicolon"]);
        }
        commands.push(ast::Command { span, kind });
        Ok(())
    }

    /// What may stand between commands and in blocks: `include` and definitions.
    pub(super) fn common(&mut self, commands: &mut Vec<ast::Command>) -> Parsed<bool> {
        match self.word() {
            "include" => {
                self.advance();
                let name = self.quoted()?;
                self.end_of_line()?;
                self.include(&name, commands)?;
            }
            "define" | "redefine" => {
                let redefine = self.at_word("redefine");
                self.advance();
                let name = self.identifier()?;
                self.expect(Punct::Eq)?;
                let value = self.initializer()?;
                self.end_of_line()?;
                let Some(scope) = self.shared.scopes.last_mut() else {
                    return Ok(true);
                };
                if !redefine && scope.contains_key(&name.text) {
                    let message = format!("redefinition of symbol '{}'", name.text);
                    return self.error(name.span, message);
                }
                scope.insert(name.text, value);
            }
            "undefine" => {
                self.advance();
                let name = self.identifier()?;
                self.end_of_line()?;
                let scope = self.shared.scopes.last_mut();
                if scope.and_then(|scope| scope.remove(&name.text)).is_none() {
                    let message = format!("undefined symbol '{}'", name.text);
                    return self.error(name.span, message);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn end_of_line(&mut self) -> Parsed<()> {
        if self.token.kind == TokenKind::End {
            return Ok(());
        }
        self.separator()
    }

    fn include(&mut self, name: &ast::Name, commands: &mut Vec<ast::Command>) -> Parsed<()> {
        let Some(loader) = self.shared.options.loader else {
            return self.error(name.span, "files cannot be included here");
        };
        let files = match loader.load(&name.text) {
            Ok(files) => files,
            Err(message) => return self.error(name.span, message),
        };
        self.nested(|parser| {
            for (name, text) in files {
                parser.shared.read(&name, &text, commands);
            }
            Ok(())
        })
    }
}
