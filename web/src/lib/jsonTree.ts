// A JSON value as the flat list of lines that are shown: only what is open is walked, so a 6 MB payload costs what is seen.

import type { Json } from '../api/types'

/** Levels that are open at first. */
export const OPEN_DEPTH = 2
/** Children of one array or object that show before "show more", and that each "more" adds. */
export const CHILDREN_STEP = 100
/** Characters of a text that show before "show all". */
export const TEXT_SHOWN_CHARS = 600
/** Lines at most; what is deeper stays closed behind them. */
export const LINES_MAX = 5_000

export type Scalar = 'string' | 'number' | 'boolean' | 'null'

export type TreeLine =
  | { readonly kind: 'branch'; readonly path: string; readonly depth: number; readonly name: string | null; readonly of: 'array' | 'object'; readonly size: number; readonly open: boolean }
  | { readonly kind: 'leaf'; readonly path: string; readonly depth: number; readonly name: string | null; readonly of: Scalar; readonly text: string; readonly hiddenChars: number }
  | { readonly kind: 'more'; readonly path: string; readonly depth: number; readonly hidden: number }

/** What a person has opened, closed or asked more of; by path (JSON Pointer). */
export interface TreeView {
  /** Branches that differ from the default: open where deep, closed where shallow. */
  readonly toggled: ReadonlySet<string>
  /** Children shown, where more than the first step. */
  readonly shown: ReadonlyMap<string, number>
  /** Texts that are shown whole. */
  readonly whole: ReadonlySet<string>
}

export const NEW_VIEW: TreeView = { toggled: new Set(), shown: new Map(), whole: new Set() }

export function lines(value: Json, view: TreeView): TreeLine[] {
  const out: TreeLine[] = []
  walk(value, { path: '', depth: 0, name: null }, view, out)
  return out
}

interface Place {
  readonly path: string
  readonly depth: number
  readonly name: string | null
}

function walk(value: Json, place: Place, view: TreeView, out: TreeLine[]): void {
  if (out.length >= LINES_MAX) return
  if (typeof value !== 'object' || value === null) {
    out.push(leaf(value, place, view))
    return
  }
  const isArray = Array.isArray(value)
  const names = isArray ? null : Object.keys(value)
  const size = isArray ? value.length : (names?.length ?? 0)
  const open = size > 0 && place.depth < OPEN_DEPTH !== view.toggled.has(place.path)
  out.push({ kind: 'branch', ...place, of: isArray ? 'array' : 'object', size, open })
  if (!open) return
  const shown = Math.min(size, view.shown.get(place.path) ?? CHILDREN_STEP)
  for (let i = 0; i < shown; i += 1) {
    const name = names === null ? String(i) : (names[i] ?? '')
    const child = isArray ? value[i] : value[name]
    walk(child ?? null, { path: `${place.path}/${escapePointer(name)}`, depth: place.depth + 1, name }, view, out)
  }
  if (shown < size) out.push({ kind: 'more', path: place.path, depth: place.depth + 1, hidden: size - shown })
}

function leaf(value: null | boolean | number | string, place: Place, view: TreeView): TreeLine {
  if (typeof value !== 'string') return { kind: 'leaf', ...place, of: value === null ? 'null' : (typeof value as Scalar), text: String(value), hiddenChars: 0 }
  const isWhole = value.length <= TEXT_SHOWN_CHARS || view.whole.has(place.path)
  return { kind: 'leaf', ...place, of: 'string', text: isWhole ? value : value.slice(0, TEXT_SHOWN_CHARS), hiddenChars: isWhole ? 0 : value.length - TEXT_SHOWN_CHARS }
}

export function toggle(view: TreeView, path: string): TreeView {
  const toggled = new Set(view.toggled)
  if (!toggled.delete(path)) toggled.add(path)
  return { ...view, toggled }
}

export function showMore(view: TreeView, path: string): TreeView {
  return { ...view, shown: new Map(view.shown).set(path, (view.shown.get(path) ?? CHILDREN_STEP) + CHILDREN_STEP) }
}

export function showWhole(view: TreeView, path: string): TreeView {
  return { ...view, whole: new Set(view.whole).add(path) }
}

function escapePointer(name: string): string {
  return name.replaceAll('~', '~0').replaceAll('/', '~1')
}
