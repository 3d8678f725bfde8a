// The browser tests: the built page in real Chromium against the real binary (TAFFRAIL_BIN) or the mock.
//   TAFFRAIL_BIN=path/to/taffrail CHROMIUM=/usr/bin/chromium node e2e/run.mjs [NAME...]
// SCREENSHOTS=1 also writes docs/screenshots. Each test has its own server, its own data and its own browser profile.

import { launch, openPage } from './browser.mjs'
import { startServer } from './server.mjs'
import { tests } from './tests.mjs'
import { screenshots } from './screenshots.mjs'

const wanted = process.argv.slice(2)
const chosen = [...tests, ...(process.env.SCREENSHOTS === '1' ? [screenshots] : [])].filter((test) => wanted.length === 0 || wanted.some((name) => test.name.includes(name)))
if (chosen.length === 0) throw new Error(`no test is called ${wanted.join(' or ')}`)

const browser = await launch()
let failed = 0
for (const test of chosen) {
  const started = Date.now()
  const server = await startServer(test)
  const opened = await openPage(browser)
  try {
    if (test.signedIn !== false) await opened.page.goto(await server.link())
    await test.run({ server, browser, ...opened })
    const complaints = opened.complaints.filter((text) => !(test.expects ?? []).some((expected) => text.includes(expected)))
    if (complaints.length > 0) throw new Error(`the console complains:\n  ${complaints.join('\n  ')}`)
    console.log(`ok    ${test.name} (${Date.now() - started} ms)`)
  } catch (error) {
    failed += 1
    console.log(`FAIL  ${test.name}\n      ${String(error.stack).replaceAll('\n', '\n      ')}`)
    if (process.env.E2E_FAILURES) await opened.page.screenshot({ path: `${process.env.E2E_FAILURES}/${test.name.replace(/\W+/g, '-')}.png` }).catch(() => undefined)
  }
  await opened.context.close()
  await server.dispose()
}
await browser.close()
console.log(`${chosen.length - failed} of ${chosen.length} passed, ${process.env.TAFFRAIL_BIN ? 'real server' : 'mock'}`)
process.exit(failed === 0 ? 0 : 1)
