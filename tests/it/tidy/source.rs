//! One file, parsed and flattened to facts: what it names, declares and does, each with its line.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// One thing that a file says.
#[derive(Clone, Debug)]
pub struct Fact {
    pub line: usize,
    /// Under `#[cfg(test)]` within this file; whether the file as a whole is a test, the tree knows.
    pub in_test: bool,
    /// Inline modules around it, outermost first.
    pub inline: Vec<String>,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// A leaf of a `use`: the path, and the name it binds here; `None` is a glob. A leading `::` is a first segment "::".
    Use {
        path: Vec<String>,
        name: Option<String>,
    },
    /// Any other path.
    Path(Vec<String>),
    /// `mod name;` or `mod name { .. }`; moved: with a path attribute.
    Module {
        name: String,
        moved: bool,
    },
    /// A named item that is no module and no `use`.
    Item {
        name: String,
        is_type: bool,
    },
    Function {
        name: String,
        lines: usize,
        /// It implements a trait, which gave it its name.
        is_of_trait: bool,
    },
    Async,
    Unsafe,
    Macro(String),
    Unwrap,
    /// `let _ = ..` or a statement `.. .ok();`.
    Discard,
}

/// The facts of a file, or where it does not parse.
pub fn facts(text: &str) -> Result<Vec<Fact>, (usize, String)> {
    let file = syn::parse_file(text).map_err(|error| (error.span().start().line, error.to_string()))?;
    let mut collector = Collector { facts: Vec::new(), inline: Vec::new(), tests_around: 0, in_trait_impl: false };
    collector.visit_file(&file);
    Ok(collector.facts)
}

struct Collector {
    facts: Vec<Fact>,
    inline: Vec<String>,
    tests_around: usize,
    in_trait_impl: bool,
}

impl Collector {
    fn add(&mut self, span: Span, what: What) {
        let fact = Fact { line: span.start().line, in_test: self.tests_around > 0, inline: self.inline.clone(), what };
        self.facts.push(fact);
    }

    fn add_item(&mut self, name: &syn::Ident, is_type: bool) {
        self.add(name.span(), What::Item { name: name.to_string(), is_type });
    }

    fn add_function(&mut self, signature: &syn::Signature, body: Option<&syn::Block>, is_of_trait: bool) {
        let first = signature.span().start().line;
        let last = body.map_or(first, |block| block.brace_token.span.close().end().line);
        let name = signature.ident.to_string();
        self.add(signature.span(), What::Function { name, lines: last - first + 1, is_of_trait });
        if let Some(token) = signature.asyncness {
            self.add(token.span(), What::Async);
        }
        if let Some(token) = signature.unsafety {
            self.add(token.span(), What::Unsafe);
        }
    }

    fn add_use(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let longer = |ident: &syn::Ident| [prefix, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_use(&longer(&path.ident), &path.tree),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.add_use(prefix, item)),
            syn::UseTree::Glob(glob) => self.add(glob.span(), What::Use { path: prefix.to_vec(), name: None }),
            syn::UseTree::Name(leaf) => self.add_leaf(leaf.ident.span(), longer(&leaf.ident), None),
            syn::UseTree::Rename(leaf) => {
                self.add_leaf(leaf.ident.span(), longer(&leaf.ident), Some(leaf.rename.to_string()));
            }
        }
    }

    /// A leaf of a `use`: `a::{self}` means `a`.
    fn add_leaf(&mut self, span: Span, mut path: Vec<String>, rename: Option<String>) {
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = rename.or_else(|| path.last().cloned());
        self.add(span, What::Use { path, name });
    }

    /// What a macro call may expand to is not known; every path, macro and `unsafe` in its tokens is taken as used.
    fn scan(&mut self, tokens: TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    self.scan(group.stream(), prefix);
                    at += 1;
                }
                TokenTree::Ident(_) => at = self.scan_path(&tokens, at, prefix),
                TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
            }
        }
    }

    /// Takes the path that begins at `at`, and says where it ends.
    fn scan_path(&mut self, tokens: &[TokenTree], mut at: usize, prefix: &[String]) -> usize {
        let span = tokens[at].span();
        let after_dot = at > 0 && is_punct(&tokens[at - 1], '.');
        let mut path = prefix.to_vec();
        path.push(tokens[at].to_string());
        at += 1;
        while at + 2 < tokens.len() && is_punct(&tokens[at], ':') && is_punct(&tokens[at + 1], ':') {
            match &tokens[at + 2] {
                TokenTree::Ident(ident) => path.push(ident.to_string()),
                TokenTree::Group(group) => {
                    self.scan(group.stream(), &path);
                    return at + 3;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => break,
            }
            at += 3;
        }
        if path == ["unsafe"] {
            self.add(span, What::Unsafe);
        } else if path == ["await"] || path == ["async"] {
            self.add(span, What::Async);
        } else if after_dot && path == ["unwrap"] {
            self.add(span, What::Unwrap);
        } else if !after_dot {
            if tokens.get(at).is_some_and(|token| is_punct(token, '!')) {
                self.add(span, What::Macro(path[path.len() - 1].clone()));
            }
            self.add(span, What::Path(path));
        }
        at
    }
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// `#[test]`, `#[cfg(test)]` or `#[cfg(all(test, ..))]`.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        syn::Meta::List(_) | syn::Meta::NameValue(_) => false,
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let test = usize::from(is_test(attributes(item)));
        self.tests_around += test;
        match item {
            syn::Item::Const(item) => self.add_item(&item.ident, false),
            syn::Item::Enum(item) => self.add_item(&item.ident, true),
            syn::Item::Static(item) => self.add_item(&item.ident, false),
            syn::Item::Struct(item) => self.add_item(&item.ident, true),
            syn::Item::Trait(item) => self.add_item(&item.ident, true),
            syn::Item::Type(item) => self.add_item(&item.ident, true),
            syn::Item::Union(item) => self.add_item(&item.ident, true),
            syn::Item::Fn(item) => self.add_item(&item.sig.ident, false),
            _ => {}
        }
        visit::visit_item(self, item);
        self.tests_around -= test;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let prefix: &[String] = if item.leading_colon.is_some() { &["::".to_string()] } else { &[] };
        self.add_use(prefix, &item.tree);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        let moved = item.attrs.iter().any(|attribute| attribute.path().is_ident("path"));
        self.add(item.ident.span(), What::Module { name: name.clone(), moved });
        self.inline.push(name);
        visit::visit_item_mod(self, item);
        self.inline.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add_function(&item.sig, Some(&item.block), false);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let test = usize::from(is_test(&item.attrs));
        self.tests_around += test;
        self.add_function(&item.sig, Some(&item.block), self.in_trait_impl);
        visit::visit_impl_item_fn(self, item);
        self.tests_around -= test;
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.add_function(&item.sig, item.default.as_ref(), false);
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let Some(token) = item.unsafety {
            self.add(token.span(), What::Unsafe);
        }
        let around = std::mem::replace(&mut self.in_trait_impl, item.trait_.is_some());
        visit::visit_item_impl(self, item);
        self.in_trait_impl = around;
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        if let Some(token) = item.unsafety {
            self.add(token.span(), What::Unsafe);
        }
        visit::visit_item_trait(self, item);
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        self.add(item.span(), What::Unsafe);
        visit::visit_item_foreign_mod(self, item);
    }

    fn visit_expr_unsafe(&mut self, expression: &'ast syn::ExprUnsafe) {
        self.add(expression.unsafe_token.span(), What::Unsafe);
        visit::visit_expr_unsafe(self, expression);
    }

    fn visit_expr_async(&mut self, expression: &'ast syn::ExprAsync) {
        self.add(expression.async_token.span(), What::Async);
        visit::visit_expr_async(self, expression);
    }

    fn visit_expr_await(&mut self, expression: &'ast syn::ExprAwait) {
        self.add(expression.await_token.span(), What::Async);
        visit::visit_expr_await(self, expression);
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        if let Some(token) = closure.asyncness {
            self.add(token.span(), What::Async);
        }
        visit::visit_expr_closure(self, closure);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" {
            self.add(call.method.span(), What::Unwrap);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_stmt(&mut self, statement: &'ast syn::Stmt) {
        match statement {
            syn::Stmt::Local(local) if local.init.is_some() && matches!(local.pat, syn::Pat::Wild(_)) => {
                self.add(local.span(), What::Discard);
            }
            syn::Stmt::Expr(syn::Expr::MethodCall(call), Some(_)) if call.method == "ok" => {
                self.add(call.method.span(), What::Discard);
            }
            _ => {}
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if path.leading_colon.is_some() {
            names.insert(0, "::".to_string());
        }
        self.add(path.span(), What::Path(names));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if let Some(last) = call.path.segments.last() {
            self.add(call.path.span(), What::Macro(last.ident.to_string()));
        }
        self.scan(call.tokens.clone(), &[]);
        visit::visit_macro(self, call);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.scan(list.tokens.clone(), &[]);
        visit::visit_meta_list(self, list);
    }
}
