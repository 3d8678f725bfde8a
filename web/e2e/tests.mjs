// What a person does with the page, one test per promise.

import assert from 'node:assert/strict'
import { openPage, rows, until, violations } from './browser.mjs'
import { readFixtures } from './mock.mjs'
import { call, fleet, notification } from './payloads.mjs'

const byId = (name) => `[data-testid=${name}]`
/** What Chromium says of a server that is away, or of a request that is meant to be refused. */
const NETWORK = ['Failed to load resource', 'WebSocket connection']

async function openLive(page, server, query = '') {
  await page.goto(`${server.url}/live${query}`)
  await until('live', async () => (await page.textContent(byId('connection'))).includes('Live'))
}

async function waitRows(page, count) {
  return until(`${count} rows`, async () => {
    const found = await rows(page)
    return found.length === count ? found : false
  })
}

export const tests = [
  {
    name: 'signing in by link and by token',
    signedIn: false,
    expects: NETWORK,
    async run({ page, server }) {
      await page.goto(server.url)
      await page.waitForSelector(byId('sign-in'))
      assert.match(await page.textContent(byId('sign-in')), /taffrail up/)
      assert.deepEqual(await violations(page), [])
      await page.fill('#token', 'not-the-token')
      await page.click('button[type=submit]')
      await until('refused', async () => (await page.textContent('#token-failure')).includes('not accepted'))
      await page.fill('#token', server.token)
      await page.click('button[type=submit]')
      await until('live', async () => (await page.textContent(byId('connection'))).includes('Live'))
      const cookies = await page.context().cookies()
      assert.ok(cookies.length > 0 && cookies.every((cookie) => cookie.httpOnly), 'the cookie is for the server only')

      await page.context().clearCookies()
      const link = await server.link()
      await page.goto(link)
      assert.ok(!page.url().includes('code='), 'the code leaves the address')
      await until('live', async () => (await page.textContent(byId('connection'))).includes('Live'))
      await page.context().clearCookies()
      const again = await page.goto(link)
      assert.equal(again.status() >= 400 || (await page.locator(byId('sign-in')).count()) > 0, true, 'a link works once')
    },
  },
  {
    name: 'empty pages say how to get data',
    async run({ page, server }) {
      for (const path of ['/', '/live']) {
        await page.goto(server.url + path)
        await page.waitForSelector(byId('empty'))
        const text = await page.textContent(byId('empty'))
        assert.match(text, /taffrail install/)
        assert.match(text, /taffrail demo/)
        assert.deepEqual(await violations(page), [])
      }
      await server.post(notification('the first'))
      const [row] = await waitRows(page, 1)
      assert.equal(row.type, 'Notification')
    },
  },
  {
    name: 'a call runs, then ends, in one row',
    async run({ page, server }) {
      await openLive(page, server)
      const made = call()
      await server.post(made.pre)
      const [running] = await waitRows(page, 1)
      assert.equal(running.status, 'running')
      assert.equal(running.what, 'Bash')
      assert.match(running.summary, /echo/)
      await until('elapsed time', async () => /s|ms/.test((await rows(page))[0].took))
      await server.post(made.post)
      const ended = await until('the end', async () => {
        const [row] = await rows(page)
        return row.status === 'succeeded' && row
      })
      assert.equal(ended.key, running.key, 'the row stays the same')
      assert.equal(ended.took, '1.23 s')
      assert.equal((await rows(page)).length, 1)

      const failing = call()
      await server.post(failing.pre)
      await server.post(failing.failure)
      const [failed] = await waitRows(page, 2)
      assert.equal(failed.status, 'failed')
      assert.equal(failed.took, '56 ms')

      const { tool_use_id: _, ...old } = call({ cwd: '/home/user/old' }).pre
      await server.post(old)
      await server.post({ ...old, hook_event_name: 'PostToolUse', tool_response: 'ok' })
      const [paired] = await waitRows(page, 3)
      assert.equal(paired.status, 'succeeded', 'an old payload without an id pairs by order')

      await page.reload()
      const reloaded = await waitRows(page, 3)
      assert.deepEqual(reloaded.map((row) => row.status), ['succeeded', 'failed', 'succeeded'], 'history shows the same')
    },
  },
  {
    name: 'a denied call is not left running',
    async run({ page, server }) {
      for (const line of readFixtures().filter((one) => one.scenario === 'permission-denied')) await server.post(line.body)
      await openLive(page, server)
      await page.waitForSelector('button.row')
      const calls = async () => (await rows(page)).filter((row) => row.type === 'PreToolUse' || row.type.startsWith('PostToolUse'))
      await until('what the server knows', async () => (await calls()).some((row) => row.status === 'denied'))
      assert.ok((await calls()).every((row) => row.status !== 'running' && row.status !== 'unknown'))
    },
  },
  {
    name: 'a recorded session arrives whole',
    async run({ page, server }) {
      await openLive(page, server)
      const recorded = readFixtures().filter((line) => line.scenario === 'parallel-tools')
      for (const line of recorded) await server.post(line.body)
      const ends = recorded.filter((line) => line.body.hook_event_name.startsWith('PostToolUse')).length
      const expected = recorded.length - ends
      const live = await until('all rows', async () => {
        const found = await rows(page)
        return found.length === expected && found
      })
      const calls = live.filter((row) => row.type.startsWith('PostToolUse'))
      assert.equal(calls.length, ends)
      assert.ok(calls.every((row) => row.took !== ''), 'every call has its duration')
      await page.reload()
      const again = await waitRows(page, expected)
      assert.deepEqual(again.map((row) => [row.type, row.status, row.took]), live.map((row) => [row.type, row.status, row.took]), 'live and history agree')
    },
  },
  {
    name: 'six filters narrow history and stream, and live in the URL',
    async run({ page, server }) {
      for (const payload of fleet()) await server.post(payload)
      await openLive(page, server)
      const all = await waitRows(page, 6)
      const apps = [...new Set(all.map((row) => row.app))]
      assert.equal(apps.length, 2)

      const cases = [
        ['app', all.find((row) => row.what === 'Grep').app, 3],
        ['session', 'bbbbbbbb-2222-4000-8000-000000000002', 3],
        ['type', 'Notification', 1],
        ['tool', 'Bash', 2],
        ['agent', 'agent-7f3a', 1],
        ['agent', 'main', 5],
      ]
      for (const [key, value, count] of cases) {
        await page.selectOption(byId(`filter-${key}`), value)
        const narrowed = await waitRows(page, count)
        assert.equal(new URL(page.url()).searchParams.get(key), value)
        await page.reload()
        const again = await waitRows(page, count)
        assert.deepEqual(again.map((row) => row.text), narrowed.map((row) => row.text), `${key} survives a reload`)
        assert.equal(await page.inputValue(byId(`filter-${key}`)), value)
        await page.click(byId('clear'))
        await waitRows(page, 6)
        assert.equal(new URL(page.url()).search, '')
      }
      await page.fill(byId('filter-q'), 'NEEDLE')
      await waitRows(page, 2)
      assert.equal(new URL(page.url()).searchParams.get('q'), 'NEEDLE')
      await page.reload()
      await waitRows(page, 2)
      assert.equal(await page.inputValue(byId('filter-q')), 'NEEDLE')

      // The stream is narrowed by the same rule.
      await server.post(notification('nothing to see'))
      await server.post(notification('another Needle'))
      const found = await waitRows(page, 3)
      assert.match(found[0].summary, /another Needle/)

      // A call whose end the filter leaves out is not said to run: the server knows how it ended.
      await page.goto(`${server.url}/live?type=PreToolUse`)
      const starts = await waitRows(page, 5)
      assert.ok(starts.every((row) => row.status !== 'running'))
      await until('how they ended', async () => (await rows(page)).filter((row) => row.status === 'succeeded').length === 4)
      assert.equal((await rows(page)).filter((row) => row.status === 'failed').length, 1)
      await page.click(byId('clear'))

      await page.fill(byId('filter-q'), 'no such thing anywhere')
      await page.waitForSelector(byId('no-match'))
      await page.click(`${byId('no-match')} button`)
      await waitRows(page, 8)
    },
  },
  {
    name: 'a row opens on its payload, errors and files',
    async run({ page, server }) {
      const edit = call({ tool_name: 'Edit', tool_input: { file_path: '/home/user/greeter/a.py', old_string: 'x', new_string: 'y\nz' } })
      await server.post(edit.pre)
      await server.post(edit.post)
      const failing = call()
      await server.post(failing.pre)
      await server.post(failing.failure)
      await openLive(page, server)
      const [failed, edited] = await waitRows(page, 2)

      await page.click(`[data-key=${failed.key}]`)
      await page.waitForSelector(byId('payload'))
      assert.match(await page.textContent(byId('detail-error')), /No such file or directory/)
      assert.match(await page.textContent(byId('payload')), /PostToolUseFailure/)
      await page.locator(byId('detail')).getByText('PreToolUse', { exact: true }).click()
      await until('the other event', async () => /hook_event_name\s*PreToolUse/.test(await page.textContent(byId('payload'))))
      await page.click(`${byId('detail')} button:has-text("Copy JSON")`)
      await until('copied', async () => (await page.textContent(byId('detail'))).includes('Copied'))
      const copied = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()))
      assert.deepEqual(copied, failing.pre, 'the payload is what was sent')
      assert.deepEqual(await violations(page), [])

      await page.keyboard.press('Escape')
      await until('closed', async () => (await page.locator(byId('detail')).count()) === 0)
      await page.click(`[data-key=${edited.key}]`)
      assert.match(await page.textContent(byId('detail-files')), /edit\s*\/home\/user\/greeter\/a\.py/)
    },
  },
  {
    name: 'markup in a payload stays text',
    async run({ page, server }) {
      const markup = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
      await server.post(notification(markup, { [markup]: [markup], cwd: `/home/user/${'<b>bold</b>'.replaceAll('/', '')}` }))
      const odd = call({ tool_name: markup, tool_input: { command: markup }, agent_id: markup, agent_type: markup })
      await server.post(odd.pre)
      await server.post({ ...odd.failure, error: markup })
      await openLive(page, server)
      const found = await waitRows(page, 2)
      for (const row of found) await page.click(`[data-key=${row.key}]`)
      await until('both payloads', async () => (await page.locator(byId('payload')).count()) === 2)
      assert.ok((await page.textContent(byId('rows'))).includes(markup), 'it is shown as it is')
      await page.goto(server.url)
      await page.waitForSelector(byId('tools'))
      assert.ok((await page.textContent('main')).includes('<img src=x'))
      assert.equal(await page.evaluate(() => window.hacked), undefined)
      assert.equal(await page.locator('main img, main script').count(), 0)
    },
  },
  {
    name: 'pause holds, resume shows all',
    async run({ page, server }) {
      await server.post(notification('before'))
      await openLive(page, server)
      await waitRows(page, 1)
      await page.keyboard.press('p')
      for (let i = 0; i < 30; i += 1) await server.post(notification(`while paused ${i}`))
      await until('the count', async () => (await page.textContent(byId('held'))).includes('30 new events'))
      assert.equal((await rows(page)).length, 1)
      await page.click(byId('pause'))
      const all = await until('all rows', async () => {
        const found = await rows(page)
        return found.length === 31 && found
      })
      assert.equal(new Set(all.map((row) => row.summary)).size, 31, 'each one once')
    },
  },
  {
    name: 'a lost connection comes back with what was missed',
    expects: NETWORK,
    async run({ page, server }) {
      await server.post(notification('before'))
      await openLive(page, server)
      await waitRows(page, 1)
      await server.stop()
      await until('reconnecting', async () => (await page.textContent(byId('connection'))).includes('Reconnecting'))
      assert.equal((await rows(page)).length, 1, 'what is shown stays')
      assert.deepEqual(await violations(page), [])

      await server.start()
      for (let i = 0; i < 3; i += 1) await server.post(notification(`missed ${i}`))
      await until('live again', async () => (await page.textContent(byId('connection'))).includes('Live'), 20_000)
      const found = await until('the gap', async () => {
        const list = await rows(page)
        return list.length === 4 && list
      }, 20_000)
      assert.match(found[0].summary, /missed 2/)
    },
  },
  {
    name: 'a server that is away shows an error with a way back',
    expects: NETWORK,
    async run({ page, server }) {
      await server.post(notification('before'))
      await openLive(page, server)
      await waitRows(page, 1)
      await server.stop()
      await page.click('nav a:has-text("Overview")')
      await page.waitForSelector(byId('problem'))
      await server.start()
      await page.click(`${byId('problem')} button`)
      await page.waitForSelector(byId('error-status'))
      await server.stop()
      await page.waitForSelector(byId('stale'), { timeout: 20_000 })
      await page.click('nav a:has-text("Live")')
      await page.waitForSelector(byId('problem'))
      assert.match(await page.textContent(byId('problem')), /taffrail up/)
      assert.deepEqual(await violations(page), [])
      await server.start()
      await page.click(`${byId('problem')} button`)
      await waitRows(page, 1)
    },
  },
  {
    name: 'the overview tells the same as the events',
    async run({ page, server }) {
      for (const payload of fleet()) await server.post(payload)
      await page.goto(server.url)
      await page.waitForSelector(byId('tools'))
      const text = await page.locator('main').innerText()
      assert.match(text, /Tool calls[\s\S]*?\b5\b/)
      assert.equal((await page.textContent(byId('error-status'))).trim(), 'Critical', '1 of 5 calls failed')
      assert.match(text, /20\.0 %/)
      assert.match(text, /No source yet/)
      await page.waitForSelector('.uplot canvas')
      assert.deepEqual(await violations(page), [])

      await page.locator('.window', { hasText: /^24h$/ }).click()
      await until('the window in the URL', () => new URL(page.url()).searchParams.get('window') === '24h')
      const app = await page.locator(`${byId('overview-app')} option`).nth(1).getAttribute('value')
      await page.selectOption(byId('overview-app'), app)
      await page.reload()
      await page.waitForSelector(byId('tools'))
      assert.equal(await page.inputValue(byId('overview-app')), app)
      assert.equal(await page.isChecked('input[value="24h"]'), true)

      // It follows what happens.
      const count = async () => Number(await page.locator('section.card', { hasText: 'Tool calls' }).locator('p span').first().innerText())
      const before = await count()
      await page.selectOption(byId('overview-app'), '')
      const made = call()
      await server.post(made.pre)
      await server.post(made.post)
      await until('the new call', async () => (await count()) > before, 20_000)

      await page.locator(byId('tools')).getByRole('link', { name: 'Read', exact: true }).click()
      await page.waitForSelector(byId('rows'))
      assert.equal(new URL(page.url()).searchParams.get('tool'), 'Read')
      assert.ok((await rows(page)).every((row) => row.what === 'Read'))
    },
  },
  {
    name: 'what it costs is on the page at once, and what has no price is loud',
    async run({ page, server, browser }) {
      const greeter = { session_id: 'aaaaaaaa-1111-4000-8000-000000000001', model: 'claude-opus-5-5', input: 10, output: 50, cache_read: 0, cache_write_5m: 14_000, cost_usd: 0.07104 }
      const stats = { ...greeter, session_id: 'bbbbbbbb-2222-4000-8000-000000000002', cwd: '/home/user/stats' }
      for (const payload of fleet()) await server.post(payload)
      await openLive(page, server)
      await until('nothing told', async () => (await page.textContent(byId('running-cost'))).includes('–'))
      const cost = (figure) => until(figure, async () => (await page.textContent(byId('running-cost'))).includes(figure))
      const began = Date.now()
      await server.bill(greeter)
      await cost('$0.0710')
      console.log(`      the cost was on the page after ${Date.now() - began} ms`)
      await server.bill({ ...stats, cache_write_5m: 0, cache_read: 14_000, cost_usd: 0.00384 })
      await server.bill(greeter)
      await cost('$0.15')
      await page.selectOption(byId('filter-session'), greeter.session_id)
      await cost('$0.14')
      assert.match(await page.textContent(byId('running-cost')), /This session/)
      assert.equal(await page.locator(byId('running-unpriced')).count(), 0)

      await page.goto(server.url)
      await until('the cost', async () => (await page.innerText(byId('cost-card'))).includes('$0.15'))
      assert.match(await page.innerText(byId('sureness')), /All of it exact/)
      // 3 requests: 30 fresh, 150 out, 14,000 read and 28,000 written: 42,180 in all, a third of the input read.
      assert.match(await page.innerText(byId('token-card')), /42\.2K[\s\S]*30 \/ 150[\s\S]*28K \/ 0[\s\S]*33\.3 %/)
      assert.match(await page.innerText(byId('cost-by-model')), /claude-opus-5-5\s+3\s+42\.2K\s+\$0\.15/)
      const apps = page.locator(`${byId('cost-by-app')} tbody tr`)
      assert.deepEqual(await apps.evaluateAll((rows) => rows.map((row) => row.cells[4].innerText)), ['$0.14', '$0.0038'], 'the dearest first')
      assert.equal(await page.locator(byId('unpriced')).count(), 0)

      await server.bill({ ...stats, model: 'made-up-model-1', cost_usd: null })
      await until('a loud mark', async () => (await page.innerText(byId('unpriced'))).includes('made-up-model-1'))
      assert.match(await page.innerText(byId('unpriced')), /1 request has no known price/)
      assert.match(await page.innerText(byId('cost-card')), /Not all priced[\s\S]*\$0\.15[\s\S]*\$0\.15 exact/)
      assert.match(await page.innerText(byId('cost-by-model')), /made-up-model-1[\s\S]*No price/)
      await page.goto(`${server.url}/live`)
      await page.waitForSelector(byId('running-unpriced'))
      await page.close()
      for (const [colorScheme, width] of [['light', 1440], ['dark', 1440], ['light', 390], ['dark', 390]]) {
        const { context, page: other, complaints } = await openPage(browser, { colorScheme, reducedMotion: 'reduce', viewport: { width, height: 844 } })
        await other.goto(await server.link())
        for (const path of ['/', '/live']) {
          await other.goto(server.url + path)
          await other.waitForSelector(path === '/' ? byId('cost-by-app') : byId('running-unpriced'))
          assert.deepEqual(await violations(other), [], `${path} ${colorScheme} ${width}`)
          const wide = await other.evaluate(() => document.documentElement.scrollWidth)
          assert.ok(wide <= width, `${path} is ${wide} px wide on ${width}`)
          if (process.env.E2E_SHOTS) await other.screenshot({ path: `${process.env.E2E_SHOTS}/${path === '/' ? 'overview' : 'live'}-${colorScheme}-${width}.png`, fullPage: true })
        }
        assert.deepEqual(complaints, [])
        await context.close()
      }
    },
  },
  {
    name: 'the keyboard does everything',
    async run({ page, server }) {
      for (const payload of fleet()) await server.post(payload)
      await openLive(page, server)
      await waitRows(page, 6)
      const focused = () => page.evaluate(() => document.activeElement?.getAttribute('data-key') ?? document.activeElement?.tagName)
      const keys = (await rows(page)).map((row) => row.key)
      await page.keyboard.press('j')
      await page.keyboard.press('j')
      await until('the second row', async () => (await focused()) === keys[1])
      await page.keyboard.press('ArrowDown')
      await page.keyboard.press('k')
      await until('the second row again', async () => (await focused()) === keys[1])
      await page.keyboard.press('Enter')
      await page.waitForSelector(byId('payload'))
      await page.keyboard.press('Escape')
      await until('closed', async () => (await page.locator(byId('detail')).count()) === 0)
      await page.keyboard.press('/')
      await until('the search', async () => (await focused()) === 'INPUT')
      await page.keyboard.type('jkp?')
      assert.equal(await page.inputValue(byId('filter-q')), 'jkp?', 'keys rest while typing')
      await page.keyboard.press('Escape')
      await page.keyboard.press('?')
      await page.waitForSelector('dialog[open]')
      assert.deepEqual(await violations(page), [])
      await page.keyboard.press('Escape')
      await until('no dialog', async () => (await page.locator('dialog[open]').count()) === 0)
      await page.keyboard.press('o')
      await until('the overview', () => new URL(page.url()).pathname === '/')
      await page.goto(`${server.url}/live`)
      await page.keyboard.press('Tab')
      assert.equal(await page.evaluate(() => document.activeElement?.textContent?.trim()), 'Skip to content')
    },
  },
  {
    name: 'history pages in by scrolling, and reading is not disturbed',
    async run({ page, server }) {
      const total = 700
      if (server.isMock) server.store.fill(total / 2)
      else for (let i = 0; i < total; i += 20) await Promise.all(Array.from({ length: 20 }, (_, j) => server.post(notification(`event ${i + j}`))))
      await openLive(page, server)
      const expected = server.isMock ? total / 2 : total
      await page.waitForSelector('button.row')
      await until('the beginning', async () => {
        await page.$eval(byId('rows'), (list) => list.scrollTo(0, list.scrollHeight))
        const last = await page.$$eval('[data-testid=rows] li', (items) => `${items.at(-1).getAttribute('aria-posinset')} of ${items.at(-1).getAttribute('aria-setsize')}`)
        return (await page.textContent('.foot')).includes('beginning') && last === `${expected} of ${expected}`
      }, 20_000)
      assert.ok((await rows(page)).length < 100, 'only what is on the screen is in the document')

      await page.$eval(byId('rows'), (list) => list.scrollTo(0, 3000))
      const place = () => page.$$eval('[data-testid=rows] button.row', (buttons) => {
        const top = document.querySelector('[data-testid=rows]').getBoundingClientRect().top
        const first = buttons.find((button) => button.getBoundingClientRect().bottom > top + 1)
        return `${first.dataset.key} ${Math.round(first.getBoundingClientRect().top - top)}`
      })
      await new Promise((resolve) => setTimeout(resolve, 200))
      const before = await place()
      for (let i = 0; i < 5; i += 1) await server.post(notification(`new ${i}`))
      await until('told', async () => (await page.textContent(byId('new-above'))).includes('5 new rows'))
      assert.equal(await place(), before, 'what is read stays where it is')
      await page.click(byId('new-above'))
      await until('the newest', async () => (await rows(page))[0].summary === 'new 4')
    },
  },
  {
    name: 'narrow, dark and reduced motion hold too',
    async run({ browser, server, page }) {
      for (const line of readFixtures().filter((one) => one.scenario === 'failing-tests')) await server.post(line.body)
      await page.close()
      for (const colorScheme of ['light', 'dark']) {
        for (const width of [390, 1000, 1440]) {
          const { context, page: other, complaints } = await openPage(browser, { colorScheme, reducedMotion: 'reduce', viewport: { width, height: 844 } })
          await other.goto(await server.link())
          for (const path of ['/', '/live']) {
            await other.goto(server.url + path)
            await other.waitForSelector(path === '/' ? '.uplot canvas' : 'button.row')
            if (path === '/live') {
              await other.locator('button.row[data-status=failed]').first().click()
              await other.waitForSelector(byId('payload'))
            }
            assert.deepEqual(await violations(other), [], `${path} ${colorScheme} ${width}`)
            const wide = await other.evaluate(() => document.documentElement.scrollWidth)
            assert.ok(wide <= width, `${path} is ${wide} px wide on ${width}`)
          }
          assert.deepEqual(complaints, [])
          await context.close()
        }
      }
    },
  },
  {
    name: 'the theme is chosen and kept',
    async run({ page, server }) {
      await page.goto(server.url)
      const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
      const light = await background()
      await page.click('label[title=Dark]')
      await until('dark', async () => (await background()) !== light)
      const dark = await background()
      await page.reload()
      assert.equal(await background(), dark)
      await page.click('label[title=System]')
      await until('the system again', async () => (await background()) === light)
    },
  },
  {
    name: '100,000 rows scroll',
    // The page is measured here; the real server's own speed is, with many more events, by the bench.
    mocked: true,
    async run({ page, server }) {
      server.store.fill(100_000)
      await openLive(page, server)
      await page.waitForSelector('button.row')
      const list = page.locator(byId('rows'))
      const loaded = await until('50,000 rows', async () => {
        await list.evaluate(async (element) => {
          for (let i = 0; i < 20; i += 1) {
            element.scrollTo(0, element.scrollHeight)
            await new Promise((resolve) => setTimeout(resolve, 25))
          }
        })
        const set = Number(await page.locator('[data-testid=rows] li').first().getAttribute('aria-setsize'))
        return set >= 50_000 && set
      }, 120_000)
      assert.ok(loaded <= 100_000)
      /** The 95th percentile of the frame times, in milliseconds, while scrolling by `stepPx`, or through the whole list. */
      const frames = (steps, stepPx) => list.evaluate(async (element, [count, px]) => {
        const times = []
        for (let i = 0; i < count; i += 1) {
          const began = performance.now()
          element.scrollTo(0, px === null ? (element.scrollHeight * i) / count : 20_000 + i * px)
          await new Promise((resolve) => requestAnimationFrame(resolve))
          times.push(performance.now() - began)
        }
        return times.sort((a, b) => a - b)[Math.floor(times.length * 0.95)]
      }, [steps, stepPx])
      const scroll = await frames(120, 60)
      const jump = await frames(60, null)
      console.log(`      ${loaded} rows; 95 % of frames within ${scroll.toFixed(1)} ms scrolling, ${jump.toFixed(1)} ms jumping`)
      assert.ok(scroll < 150 && jump < 300, 'scrolling stutters')
      await page.keyboard.press('g')
      await server.post(notification('still live'))
      await until('still live', async () => (await rows(page))[0].summary === 'still live')
    },
  },
]
