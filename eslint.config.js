// Types are checked as strictly as typescript-eslint can. Beyond that, the rules here are about who
// may import whom: dependencies run one way.
//
//   examples, bench ▸ lib/index        executor-manager, resource-manager ▸ lib
//   lib/client ▸ lib/fabric ▸ lib/native ▸ the addon
import tseslint from 'typescript-eslint'

/** Nothing of `files` imports what matches; `reason` is what the developer reads. */
function closed(name, files, ignores, group, reason) {
  return {
    name: `rfaas/${name}`,
    files,
    ignores,
    rules: { 'no-restricted-imports': ['error', { patterns: [{ group, message: reason }] }] },
  }
}

const managers = ['**/executor-manager/**', '**/resource-manager/**']
const addon = ['**/*.node', '**/build/Release/**', '**/build/Debug/**']
const libraryReason = 'The library does not know the managers; lib/cli and lib/local-cluster do.'
const addonReason = 'lib/native.ts is the only way to the addon.'

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'build-*/', 'node_modules/', 'coverage/'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: { projectService: { allowDefaultProject: ['vitest.config.ts'] } },
    },
    rules: {
      // Numbers in messages are the rule here; objects and null in them stay errors.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/consistent-type-imports': [
        'error',
        { fixStyle: 'separate-type-imports' },
      ],
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', varsIgnorePattern: '^_', ignoreRestSiblings: true },
      ],
      // `return reply(…)` says that this is all there is to do.
      '@typescript-eslint/no-confusing-void-expression': 'off',
      // It does not see that a field changes, or a callback sets a variable, during an await.
      '@typescript-eslint/no-unnecessary-condition': 'off',
      // Options are objects of functions, and taken apart.
      '@typescript-eslint/unbound-method': 'off',
      // Promise.all() of what is a promise only sometimes.
      '@typescript-eslint/await-thenable': 'off',
      // It takes assertions for unnecessary that the compiler then asks for (loggerInstance).
      '@typescript-eslint/no-unnecessary-type-assertion': 'off',
      // Spreading a string is how code points are counted.
      '@typescript-eslint/no-misused-spread': 'off',
      // An element that the loop's own bounds guarantee: `!` says so in one character.
      '@typescript-eslint/no-non-null-assertion': 'off',
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-console': 'error',
    },
  },
  {
    name: 'rfaas/programs',
    files: ['lib/cli/**', 'examples/**', 'bench/**', '**/*.mjs', '**/*.js', '**/main.ts'],
    rules: { 'no-console': 'off' },
  },
  {
    name: 'rfaas/tests',
    files: ['test/**/*.ts'],
    rules: {
      // Wrong arguments are what many tests are about.
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: false }],
      '@typescript-eslint/require-await': 'off',
      'no-console': 'off',
    },
  },
  closed(
    'library',
    ['lib/**/*.ts'],
    ['lib/cli/**', 'lib/local-cluster.ts', 'lib/fabric/**', 'lib/native.ts'],
    [...managers, ...addon],
    `${libraryReason} ${addonReason}`,
  ),
  closed(
    'fabric',
    ['lib/fabric/**/*.ts', 'lib/native.ts'],
    [],
    [...managers, '**/client/**', '**/control/**', '**/cli/**'],
    'The fabric stands alone: it knows lib/native, and nothing of leases or HTTP.',
  ),
  closed(
    'executor-manager',
    ['executor-manager/**/*.ts'],
    [],
    ['**/resource-manager/**', '**/cli/**', '**/lib/client/**', ...addon],
    'The managers know lib and the messages of lib/control, not each other.',
  ),
  closed(
    'resource-manager',
    ['resource-manager/**/*.ts'],
    [],
    ['**/executor-manager/**', '**/cli/**', '**/lib/client/**', '**/lib/native.js', ...addon],
    'The managers know lib and the messages of lib/control, not each other.',
  ),
  closed(
    'users',
    ['examples/**/*.ts', 'bench/**/*.ts'],
    [],
    [
      ...managers,
      ...addon,
      '**/lib/**',
      '!**/lib/index.js',
      '!**/lib/fabric/',
      '!**/lib/fabric/index.js',
      '!**/lib/local-cluster.js',
      '!**/lib/control/',
      '!**/lib/control/http.js',
      '!**/lib/units.js',
      '!**/lib/package-root.js',
      '!**/lib/plots/',
      '!**/lib/plots/*.js',
    ],
    'Examples and benchmarks use what a user has: lib/index, lib/fabric/index, ' +
      'lib/local-cluster, lib/control/http, lib/units, lib/plots.',
  ),
)
