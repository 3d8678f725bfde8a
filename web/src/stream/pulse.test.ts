import { expect, it } from 'vitest'
import { Pulse } from './pulse'

it('counts an event that comes after a newer one', () => {
  const pulse = new Pulse()
  pulse.note(9, 60_500)
  pulse.note(8, 60_400)
  expect(pulse.read(60_999).at(-1)).toBe(2)
})

it('counts by second, forgets after a minute, and counts nothing twice', () => {
  const pulse = new Pulse()
  pulse.note(1, 60_000)
  pulse.note(2, 60_900)
  pulse.note(2, 60_900)
  pulse.note(4, 61_000)
  expect(pulse.read(61_500).slice(-3)).toEqual([0, 2, 1])
  expect(pulse.read(61_500).reduce((a, b) => a + b)).toBe(3)
  expect(pulse.read(121_000).reduce((a, b) => a + b)).toBe(0)
  pulse.note(5, 121_000)
  expect(pulse.read(121_000).reduce((a, b) => a + b)).toBe(1)
})
