// What no other linter sees: native/sources.gypi lists every C++ file exactly once, C++ is formatted,
// and no source names a path of somebody's machine or leaves work for later.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const problems = []

// The tree may belong to another user than the one who builds it, in a container for example.
const list = ['-c', 'safe.directory=*', 'ls-files', '-z', '--cached']
const tracked = execFileSync('git', list, { cwd: root, encoding: 'utf8' })
  .split('\0')
  .filter((file) => file !== '' && existsSync(join(root, file)))
const isNative = (file) => file.startsWith('native/')

// Compiled by something other than the two build files, with their own reasons.
const unlisted = (file) => file.startsWith('native/test/packages/')

checkLists()
checkFormat()
checkText()

for (const problem of problems) console.error(`check-sources: ${problem}`)
if (problems.length > 0) process.exit(1)
console.log(`check-sources: ${tracked.length} files are in order`)

function checkLists() {
  const { variables } = JSON.parse(readFileSync(join(root, 'native', 'sources.gypi'), 'utf8'))
  const lists = new Map()
  for (const [list, files] of Object.entries(variables)) {
    for (const file of files) {
      const before = lists.get(file)
      if (before !== undefined) problems.push(`${file} is in ${before} and in ${list}`)
      if (!tracked.includes(file)) problems.push(`${file} of ${list} is not in the repository`)
      lists.set(file, list)
    }
  }
  for (const file of tracked) {
    if (!isNative(file) || !file.endsWith('.cc') || unlisted(file)) continue
    if (!lists.has(file)) problems.push(`${file} is in no list of native/sources.gypi`)
  }
}

function checkFormat() {
  const files = tracked.filter((file) => isNative(file) && /\.(cc|h)$/.test(file))
  const result = spawnSync('clang-format', ['--dry-run', '-Werror', ...files], {
    cwd: root,
    encoding: 'utf8',
  })
  if (result.error?.code === 'ENOENT') {
    problems.push('clang-format is not installed (Debian: apt-get install clang-format)')
  } else if (result.error) {
    throw result.error
  } else if (result.status !== 0) {
    const names = new Set(
      [...result.stderr.matchAll(/^(native\/[^:]+):\d+:\d+: error/gm)].map((match) => match[1]),
    )
    const what = names.size > 0 ? [...names].join(', ') : result.stderr.trim()
    problems.push(`clang-format would change ${what}: run \`npm run format\``)
  }
}

function checkText() {
  const self = 'scripts/check-sources.mjs'
  const isText = (file) => /\.(cc|h|ts|js|mjs|json|gyp|gypi|sh|txt|md|cmake|yml|yaml)$/.test(file)
  const rules = [
    [/\b(TODO|FIXME|XXX)\b/, 'leaves work for later'],
    [/(^|[^\w.$}])\/(root|work|Users)\/\w/, "names a path of somebody's machine"],
    [/(^|[^\w.$}])\/home\/(?!(user|you|me)\b)\w/, "names a path of somebody's machine"],
  ]
  for (const file of tracked) {
    if (file === self || file === 'package-lock.json' || !isText(file)) continue
    const lines = readFileSync(join(root, file), 'utf8').split('\n')
    for (const [index, line] of lines.entries()) {
      for (const [pattern, what] of rules) {
        if (pattern.test(line)) problems.push(`${file}:${index + 1} ${what}: ${line.trim()}`)
      }
    }
  }
}
