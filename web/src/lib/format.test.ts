import { describe, expect, it } from 'vitest'
import { bucketOf, bytes, clock, count, duration, elapsed, integer, NOTHING, percent, shortId, signed, usd } from './format'

describe('duration', () => {
  it.each<[number | null, string]>([
    [null, NOTHING], [0, '0 ms'], [0.4, '<1 ms'], [1, '1 ms'], [999, '999 ms'], [999.7, '1.00 s'], [1234, '1.23 s'], [9994, '9.99 s'], [9999, '10.0 s'], [59_949, '59.9 s'],
    [59_970, '1 m 00 s'], [125_000, '2 m 05 s'], [3_599_600, '1 h 00 m'], [11_040_000, '3 h 04 m'], [183_600_000, '2 d 03 h'], [-5, '−5 ms'],
  ])('%s ms is %s', (ms, text) => expect(duration(ms)).toBe(text))
})

it('counts whole seconds of what still runs', () => expect([elapsed(-5), elapsed(999), elapsed(59_999), elapsed(60_000)]).toEqual(['0 s', '0 s', '59 s', '1 m 00 s']))

describe('bytes', () => {
  it.each<[number | null, string]>([[null, NOTHING], [0, '0 B'], [999, '999 B'], [1000, '1.00 KB'], [12_345, '12.3 KB'], [999_600, '1.00 MB'], [6_000_000, '6.00 MB'], [150e9, '150 GB']])('%s is %s', (size, text) => expect(bytes(size)).toBe(text))
})

describe('numbers', () => {
  it('groups and shortens', () => {
    expect([integer(1234567), count(9999), count(12_345), count(3_400_000)]).toEqual(['1,234,567', '9,999', '12.3K', '3.4M'])
  })
  it('tells nothing apart from zero', () => expect([integer(null), integer(0), percent(null), percent(0), usd(null), usd(0)]).toEqual([NOTHING, '0', NOTHING, '0 %', NOTHING, '$0.00']))
  it('writes shares', () => expect([percent(0.423), percent(12.34), percent(100), percent(99.96)]).toEqual(['0.42 %', '12.3 %', '100 %', '100.0 %']))
  it('writes changes with a sign', () => expect([signed(4.23), signed(-4.23), signed(0.001)]).toEqual(['+4.2', '−4.2', '±0.0']))
  it('writes money', () => expect([usd(0.0123), usd(0.75), usd(12.5)]).toEqual(['$0.0123', '$0.75', '$12.50']))
})

describe('times', () => {
  const noon = new Date(2026, 10, 22, 12, 3, 4, 56).getTime()
  it('shows the time of day, with the day where it is another', () => {
    expect(clock(noon, noon + 1000)).toBe('12:03:04.056')
    expect(clock(noon, noon + 86_400_000)).toBe('11-22 12:03:04')
  })
})

it('shortens ids', () => expect([shortId('5e14197a-2d3d-4797-a267-37071f474da3'), shortId('main')]).toEqual(['5e14197a', 'main']))
it('gives the same text the same bucket', () => {
  expect(bucketOf('s1', 8)).toBe(bucketOf('s1', 8))
  expect(new Set(Array.from({ length: 100 }, (_, i) => bucketOf(`session ${i}`, 8))).size).toBe(8)
})
