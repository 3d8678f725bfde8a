import { describe, expect, it } from 'vitest'
import type { Json } from '../api/types'
import { CHILDREN_STEP, lines, LINES_MAX, NEW_VIEW, showMore, showWhole, TEXT_SHOWN_CHARS, toggle, type TreeLine, type TreeView } from './jsonTree'

function shown(value: Json, view: TreeView = NEW_VIEW): string[] {
  return lines(value, view).map((line: TreeLine) => {
    const indent = ' '.repeat(line.depth)
    if (line.kind === 'more') return `${indent}+${line.hidden}`
    const name = line.name === null ? '' : `${line.name}: `
    return line.kind === 'leaf' ? `${indent}${name}${line.text}` : `${indent}${name}${line.of} ${line.size}${line.open ? '' : ' closed'}`
  })
}

describe('lines', () => {
  it('opens two levels', () => {
    expect(shown({ a: 1, b: { c: { d: null } }, e: [] })).toEqual(['object 3', ' a: 1', ' b: object 1', '  c: object 1 closed', ' e: array 0 closed'])
  })

  it('opens and closes by path, also where names hold slashes', () => {
    const value = { 'a/b': { c: { d: true } } }
    const open = toggle(NEW_VIEW, '/a~1b/c')
    expect(shown(value, open)).toEqual(['object 1', ' a/b: object 1', '  c: object 1', '   d: true'])
    expect(shown(value, toggle(open, '/a~1b/c'))).toEqual(shown(value))
    expect(shown(value, toggle(NEW_VIEW, ''))).toEqual(['object 1 closed'])
  })

  it('shows scalars of every kind', () => {
    expect(shown('x')).toEqual(['x'])
    expect(shown([false, 1.5, null, ''])).toEqual(['array 4', ' 0: false', ' 1: 1.5', ' 2: null', ' 3: '])
  })

  it('shows long lists step by step', () => {
    const value = Array.from({ length: 250 }, (_, i) => i)
    expect(shown(value)).toHaveLength(CHILDREN_STEP + 2)
    expect(shown(value).at(-1)).toBe(' +150')
    expect(shown(value, showMore(showMore(NEW_VIEW, ''), ''))).toHaveLength(251)
  })

  it('cuts long texts until they are asked for', () => {
    const text = 'x'.repeat(TEXT_SHOWN_CHARS + 5)
    const cut = lines(text, NEW_VIEW)[0]
    expect(cut).toMatchObject({ kind: 'leaf', hiddenChars: 5 })
    expect(lines(text, showWhole(NEW_VIEW, ''))[0]).toMatchObject({ text, hiddenChars: 0 })
  })

  it('leaves markup the text it is', () => {
    expect(shown({ html: '<img src=x onerror=alert(1)>' })[1]).toBe(' html: <img src=x onerror=alert(1)>')
  })

  it('stays within its bounds on a payload 1,000 deep and on one that is wide', () => {
    let deep: Json = 1
    for (let i = 0; i < 1000; i += 1) deep = { n: deep }
    expect(shown(deep)).toHaveLength(3)
    let view = NEW_VIEW
    let path = ''
    for (let i = 0; i < 1000; i += 1) {
      if (i >= 2) view = toggle(view, path)
      path += '/n'
    }
    expect(shown(deep, view)).toHaveLength(1001)
    const wide = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`k${i}`, Array.from({ length: 100 }, () => 0)]))
    expect(lines(wide, NEW_VIEW).length).toBeLessThanOrEqual(LINES_MAX + CHILDREN_STEP)
  })
})
