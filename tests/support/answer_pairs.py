# ruff: noqa: RUF001
r"""Pairs of answers by kind: a gold answer, what equals it, and what does not.

One row per idea. What is equal is another spelling of one value; what is not is close to it.
"""

PAIRS: dict[str, list[tuple[str, list[str], list[str]]]] = {
    "number": [
        (
            "18",
            ["18.0", "018", "$18$", "+18", "18.", r"\frac{36}{2}"],
            ["-18", "81", "180", "18.5"],
        ),
        ("-6", ["−6", "–6", r"-\frac{12}{2}", "$-6$"], ["6", r"\pm 6", "-0.6"]),
        (r"\frac{9}{4}", ["9/4", "2.25", r"\dfrac94", r"2\frac14", "2 1/4", "2¼"], ["4/9", "2.2"]),
        (r"-\frac{5}{2}", [r"-2\frac{1}{2}", r"\frac{5}{-2}", "−2½"], [r"-1\frac{1}{2}"]),
        (r"0.4\overline{6}", [r"\frac{7}{15}", r"0.4\bar{6}"], ["0.46", "0.47", "0.4666667"]),
        (r"3.2 \times 10^{-3}", ["0.0032", "3.2e-3", r"\frac{2}{625}"], ["0.032", "3.2e3"]),
        (r"\frac{1}{7^{50}}", ["7^{-50}"], [r"\frac{1}{7^{49}}", "0"]),
        ("2^{10}", ["1024", "2^10", "2**10", "2¹⁰"], ["20", "2^{11}", "210"]),
        (r"\infty", [r"+\infty", "∞"], [r"-\infty", "10^{9}"]),
        ("1", [], [r"\frac{0}{0}", "x"]),
    ],
    "rounded": [
        (r"\frac{2}{7}", [r"\frac{4}{14}"], ["0.285714", "0.2857142857"]),
        (r"\sqrt{3}", [r"√3", r"\sqrt3", "3^{1/2}", "sqrt(3)"], ["1.7320508", "1.73"]),
        (r"\pi", ["π", r"\pi \approx 3.14"], ["3.14159265", r"\frac{22}{7}"]),
        ("0.142857", [r"\frac{1}{7}"], ["0.1428", "0.143", "0.142858"]),
        ("0.3", ["0.30000000000000004", "3/10"], ["0.3001", r"\frac{1}{3}"]),
        ("2.71", ["271/100"], ["e", "2.7"]),
    ],
    "thousands": [
        ("86400", ["86,400", r"86{,}400", r"86,\!400", r"86\,400", "86 400", "86 400"], ["86,40"]),
        (r"5,\!062,\!500", ["5062500", "5,062,500"], ["5, 62, 500", "5,062,50", "5"]),
        ("1,250", ["1250", "1250.0"], ["1, 250", "125", "12,50"]),
        ("37", [], ["3,7", "3, 7", "3.7", "7,3"]),
        ("70", [], ["7,0", "7, 0", "07"]),
    ],
    "list": [
        (
            "2,5,8",
            ["8, 5, 2", r"2, 5 \text{ and } 8", r"\{5, 2, 8\}"],
            ["258", "25,8", "2,58", "2,5"],
        ),
        (
            "1, -3",
            [r"x = 1 \text{ or } x = -3", "x = 1, -3", r"\boxed{-3}, \boxed{1}"],
            ["1", "-2"],
        ),
        (r"2 \pm \sqrt{3}", [r"2-\sqrt{3}, 2+\sqrt{3}"], [r"2+\sqrt{3}", r"2, \sqrt{3}"]),
        ("x=2, y=9", ["y=9, x=2", "2, 9"], ["x=9, y=2", "9, 2"]),
        ("7", [], ["7, 8", r"7 \text{ or } 8", r"\pm 7", "7, 7"]),
        ("3, 3, 5", ["5, 3, 3"], ["3, 5"]),
        ("0,4", ["4, 0"], ["4", "04", "0.4"]),
    ],
    "set": [
        (
            r"\{1, 6\}",
            [r"\{6,1\}", r"\left\{ 1, \frac{12}{2} \right\}", "1, 6"],
            ["(1,6)", r"\{1,7\}"],
        ),
        (r"\emptyset", [r"\varnothing", r"\{\}", "∅"], [r"\{0\}", "0"]),
        (r"\{2 \pm \sqrt{7}, 1\}", [r"\{1, 2+√7, 2-√7\}"], [r"\{2, \sqrt{7}, 1\}"]),
    ],
    "tuple": [
        ("(4,-1)", ["( 4, -1 )", r"\left(4,-\frac{2}{2}\right)"], ["(-1,4)", r"\{4,-1\}", "4,-1"]),
        ("(2,3,9)", [r"\langle 2, 3, 9 \rangle"], ["(3,2,9)", "(2,3)", "(2,4,8)", "14"]),
        ("(1,200)", ["(1, 200)"], ["1200", "(1, 2, 0, 0)"]),
        ("(x,y) = (5,2)", ["(5,2)"], ["(2,5)"]),
    ],
    "matrix": [
        (
            r"\begin{pmatrix} 2 \\ -7 \end{pmatrix}",
            [
                r"\begin{pmatrix}2\\-7\end{pmatrix}",
                r"\begin{bmatrix} 2 \\[2pt] -7 \end{bmatrix}",
                "\\begin{pmatrix}\n2 \\\\\n-7\n\\end{pmatrix}",
                "(2,-7)",
                r"\frac12\begin{pmatrix}4\\-14\end{pmatrix}",
            ],
            [
                r"\begin{pmatrix}-7\\2\end{pmatrix}",
                r"\begin{pmatrix}-1\\-4\end{pmatrix}",
                "-5",
                r"\begin{pmatrix}2&-7\end{pmatrix}",
            ],
        ),
        (
            r"\begin{pmatrix} 1 & 0 \\ 3 & 5 \end{pmatrix}",
            [r"\left[\begin{array}{cc}1&0\\3&5\end{array}\right]"],
            [r"\begin{pmatrix}1&3\\0&5\end{pmatrix}", r"\begin{pmatrix}3&5\\1&0\end{pmatrix}"],
        ),
    ],
    "interval": [
        (
            "(2,4.5]",
            [r"2 < x \le 4.5", r"x \in (2,\frac{9}{2}]", "2<x≤4.5"],
            ["[2,4.5)", "(2,4.5)"],
        ),
        (r"[0,\infty)", [r"x \geq 0", r"0 \le x", r"\{x \mid x \ge 0\}"], ["x > 0", r"(0,\infty)"]),
        (r"-1 \le t \le 1", ["[-1,1]"], ["(-1,1)", r"-1 \le s \le 1"]),
        (
            r"(-\infty,0) \cup (3,\infty)",
            [r"(3,\infty)\cup(-\infty,0)", r"x<0 \text{ or } x>3"],
            [r"(-\infty,0] \cup (3,\infty)", "(0,3)"],
        ),
        (
            r"(-\infty,2) \cup (2,\infty)",
            [r"x \neq 2", r"\mathbb{R} \setminus \{2\}"],
            [r"\mathbb{R}"],
        ),
    ],
    "relation": [
        (
            "29",
            ["x = 29", "29 = x", r"\text{Area} = 29", "AB = 29"],
            [r"x \neq 29", r"\ge 29", "> 29"],
        ),
        ("x = 4", ["4", "x=4.0"], ["y = 4", r"x \ne 4", "x = -4", r"x \approx 5"]),
        ("x + y > 2", ["2x + 2y > 4", "2 < x + y"], ["-x - y > -2", r"x + y \ge 2"]),
    ],
    "chain": [
        ("20", [r"4 \cdot 5 = 20", r"x = 10 + 10 = 20"], ["21 = 20", "20 = 21", "x = 21 = 20"]),
        (
            r"\frac{3}{8}",
            [r"\frac{6}{16} = \frac{3}{8}", r"\frac{3}{8} = 0.375"],
            [r"\frac{3}{8} = 0.4"],
        ),
    ],
    "equation": [
        ("y = 2x - 5", ["2x - y = 5", "y = -5 + 2x", "2x - 5"], ["y = 2x + 5", "x = 2y - 5"]),
        ("x^2 + y^2 = 49", ["y^2 + x^2 - 49 = 0"], ["x^2 + y^2 = 7", "x^2 - y^2 = 49"]),
    ],
    "base": [
        (
            "425_6",
            ["425_{6}", r"425_{\text{six}}", "$425_6$"],
            ["425_7", "425_{12}", "524_6", "161"],
        ),
        ("52", ["52_{10}"], ["52_8", "52_{7}"]),
    ],
    "sequence": [
        (
            r"2, 4, \ldots, 2n",
            ["2, 4, ..., 2n"],
            [r"2, 6, \ldots, 2n", "2, 4, 2n", r"4, 2, \ldots, 2n"],
        ),
    ],
    "unit": [
        (
            "15",
            [
                r"15 \text{ ducks}",
                r"15\text{ km/h}",
                r"15\mbox{ ft}^2",
                r"15\,\mathrm{kg}",
                "15 cm",
                r"\$15",
                "15%",
                "15°",
                "15 ducks",
            ],
            ["15m", "15x", r"16\text{ ducks}"],
        ),
        (
            r"8\text{ cm}^2",
            ["8", r"8 \text{ square centimeters}"],
            [r"8\text{ cm}", r"8\text{ m}^2", "64"],
        ),
        (r"25\%", ["25", r"25 \text{ percent}"], ["0.25", "2.5", r"25\text{ dollars}"]),
        (
            r"\$6,\!400.50",
            ["6400.5", r"6400.50\text{ dollars}"],
            ["640050", r"6400.50\text{ cents}"],
        ),
        (
            r"65^\circ",
            ["65°", r"65^{\circ}", r"65\degree", "65", "65 degrees"],
            [r"56^\circ", "65%"],
        ),
    ],
    "no unit": [
        ("8", [], [r"8 \text{ or more}", r"8 \text{ squared}", r"8\text{ million}", "8 dozen"]),
        ("3000000", [r"3 \text{ million}", "3 million"], ["3", "3 thousand"]),
        (r"4\text{ million dollars}", ["4000000", r"\$4,\!000,\!000"], ["4"]),
    ],
    "several values": [
        ("8", [], [r"8 \\ 9", r"8 \quad 9", r"8 \to 9", "8 9", r"8 \ldots", r"8 \mod 9", r"\{8)"]),
        ("6", [], ["xy = 6", "|x| = 6", "x^2 = 6", "2 3", r"6 \in S"]),
    ],
    "expression": [
        ("(x-1)(x+4)", ["x^2+3x-4", "(x+4)(x-1)"], ["x^2-3x-4", "(x-1)(x+4), x"]),
        ("6k-1", ["-1+6k", "6k - 1"], ["6n-1", "6k+1"]),
        (r"\frac{x+1}{x-2}", ["(x+1)/(x-2)"], [r"\frac{x-2}{x+1}"]),
        (r"\sqrt{x^2}", ["|x|"], ["x"]),
        ("1 - 4i", ["-4i + 1", r"1 - 4\mathrm{i}"], ["1 + 4i", "-3"]),
        (r"\frac{\sqrt{2}}{2}", [r"\sin 45^\circ", r"\frac{1}{\sqrt2}"], [r"\sqrt{2}"]),
        (r"\sqrt[3]{6}", ["6^{1/3}", "∛6"], [r"\sqrt{6}", "2"]),
        (r"\binom{6}{2}", ["15", r"{6 \choose 2}"], [r"\binom{6}{3}"]),
        ("x_1", ["x_{1}"], ["x_2", "x"]),
    ],
    "word": [
        (
            r"\text{north}",
            ["north", "North", r"\textbf{North}", "**north**", "north."],
            ["thorn", "no"],
        ),
        ("listen", [], ["silent", "list"]),
        (r"\text{May 4}", ["May 4"], ["May 5", "4"]),
        (r"\text{(C)}", ["C", "(C)", r"\text{C}"], ["D", r"\text{(B)}", "C, D"]),
    ],
    "wrapped": [
        (
            "44",
            [
                r"\mathbf{44}",
                r"\boldsymbol{44}",
                "**44**",
                "`44`",
                r"\displaystyle 44",
                r"\(44\)",
                r"\text{44}",
                "{44}",
                "４４",
                "  44 ",
            ],
            ["**45**", r"\mathbf{4}\mathbf{4}"],
        ),
        (r"\theta", ["θ", r"\mathbf{\theta}"], [r"\phi"]),
        (
            r"\left(\frac13, 2\right)",
            [r"\Big( \tfrac{1}{3},\, 2 \Big)"],
            [r"\Big(2, \tfrac13\Big)"],
        ),
    ],
    "product": [
        ("42", ["(6)(7)", "6(7)", r"(6)\cdot(7)"], ["13", "67", "(6)(8)"]),
        ("13", [], ["(6)(7)", "6(7)"]),
        (
            r"\frac{7}{3}",
            [r"(7)\frac{1}{3}", r"7(\frac{1}{3})"],
            [r"7\frac{1}{3}", r"\frac{22}{3}"],
        ),
        (
            r"\begin{pmatrix} 30 & -7 \\ 14 & -21 \end{pmatrix}",
            [r"\frac{1}{2}\begin{pmatrix} 60 & -14 \\ 28 & -42 \end{pmatrix}"],
            [r"\frac{1}{2}\begin{pmatrix} 60 & -14 \\ 28 & -41 \end{pmatrix}"],
        ),
        (
            r"\log_{7} 12",
            [r"\frac{1}{\log_{12} 7}"],
            [r"\frac{1}{\log_{7} 12}", r"\log_7 1 \cdot 2"],
        ),
        (r"4\ln 5", [r"\ln 5 \cdot 4", r"\ln 625"], [r"\ln 20", r"\ln(5 \cdot 4)"]),
    ],
    "real numbers": [
        ("-3", [r"\sqrt[3]{-27}", r"-\sqrt[3]{27}"], [r"\sqrt[3]{27}"]),
        (r"\ln(uv)", [r"\ln u + \ln v"], [r"\ln u \cdot \ln v", r"\ln(u+v)"]),
        (r"\sqrt[5]{t^2}", ["t^{2/5}", r"(\sqrt[5]{t})^2"], ["t^{5/2}", r"\sqrt{t^5}"]),
        (r"\sqrt{\frac{a}{b}}", [r"\frac{\sqrt{a}}{\sqrt{b}}"], [r"\frac{\sqrt{b}}{\sqrt{a}}"]),
        (r"\frac{8}{15}", [r"0.5333\ldots", "0.5333..."], ["0.5333", r"0.53\ldots"]),
        (r"\frac{41}{333}", [r"0.123123123\ldots", r".\overline{123}"], [r"0.123\ldots"]),
        ("0.12345678901234567", ["0.123456789012345670"], ["0.12345678901234568"]),
        ("y'", [], ["y", "y''"]),
    ],
    "ratio": [
        (
            "3:8",
            ["3 : 8", r"3\text{ to }8", "6:16", r"3\mathbin{:}8"],
            ["8:3", "3:9", "3, 8", "38"],
        ),
        ("2:5:6", ["4:10:12"], ["2:6:5", "2:5", "5:2:6"]),
    ],
    "congruence": [
        (
            r"x \equiv 4 \pmod{9}",
            [r"x≡4 (mod 9)", r"x \equiv 4\ (\text{mod }9)", r"x \equiv 13 \pmod 9", r"4 \bmod 9"],
            [r"x \equiv 4 \pmod{8}", r"x \equiv 5 \pmod{9}", r"y \equiv 4 \pmod{9}", "4", "x = 4"],
        ),
    ],
    "names": [
        (
            "a = 2, b = -7",
            ["(a, b) = (2, -7)", "(b, a) = (-7, 2)"],
            ["(a, b) = (-7, 2)", "(a, c) = (2, -7)"],
        ),
        (
            "(6, -1)",
            ["x = 6, y = -1", "y = -1, x = 6", "Q(6, -1)", r"\text{the point } (6, -1)"],
            ["x = -1, y = 6", "a = 6, b = -1", "Q(-1, 6)"],
        ),
        (
            r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}",
            [r"A^{-1} = \begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}"],
            [],
        ),
        (
            "19",
            ["p + q = 19", "p + q = 12 + 7 = 19", r"1 + 3 + \cdots + 7 = 19", r"V = abc = 19"],
            ["pq = 19", "p + q = 18", "12 + 8 = 19"],
        ),
        ("16\\pi", [r"A = \pi r^2 = 16\pi"], [r"A = \pi r^2 = 4\pi"]),
        (r"\lim_{n \to \infty} a_n = 6", ["6", "L = 6"], ["7"]),
        ("f(x) = 3x - 4", ["y = 3x - 4", "3x - 4"], ["y = 3x + 4"]),
    ],
    "brackets outward": [
        (
            "(3, 8]",
            ["]3, 8]", "3<x<=8", r"x > 3 \text{ and } x \le 8"],
            ["[3, 8[", "]3, 8[", "x > 3, x < 2"],
        ),
        (r"[2, 6)", ["[2, 6["], ["]2, 6]"]),
        ("2x + y < 9", ["y < 9 - 2x"], ["y > 9 - 2x", "y < 9 + 2x"]),
    ],
    "compound unit": [
        (
            r"7.5\text{ m/s}^2",
            [
                "7.5",
                r"7.5\,\mathrm{m/s^2}",
                "7.5 m/s^2",
                r"7.5\ \text{m}\,\text{s}^{-2}",
                "7.5 meters per second^2",
            ],
            [r"7.5\text{ m/s}", r"7.5\text{ s/m}^2", "7.5 ft/s^2"],
        ),
        (r"45\text{ mph}", ["45 miles per hour", "45"], ["45 km/h", r"45\text{ miles}"]),
        (
            r"\$18 \text{ per hour}",
            ["18 dollars/hour", "18"],
            [r"\$18 \text{ per day}", "18 euros per hour"],
        ),
        (r"30\text{ N}\cdot\text{m}", ["30", r"30\ \mathrm{N\cdot m}", "30 N·m"], ["30 N", "30 J"]),
        (r"6\text{ L}", ["6", "6 L", "6 liters"], ["6 g", "6 L^2"]),
        ("85 s", ["85 seconds", r"85\text{ s}"], ["85 h", "85 x"]),
        (r"25^\circ\text{C}", ["25°C", "25 degrees Celsius"], ["25°F"]),
        (r"9\ \Omega", ["9", "9 ohms"], ["9 V"]),
        ("80", [], ["80m", "80n"]),
        ("USD 7.25", [r"\$7.25", "7.25"], ["€7.25"]),
        ("12'", ["12"], [r"12^\circ", "12 ft"]),
    ],
    "date and time": [
        (
            "April 9, 2018",
            [
                "9 April 2018",
                "April 9 2018",
                "the 9th of April, 2018",
                "2018-04-09",
                "Apr. 9, 2018",
            ],
            ["April 8, 2018", "September 4, 2018", "2018-09-04", "April 9", "April 9, 2008"],
        ),
        ("2005", ["in 2005", "the year 2005"], ["2018-04-09"]),
        (
            "6:05 PM",
            ["18:05", "6:05 p.m.", r"6{:}05 \text{ pm}"],
            ["6:05 AM", "6:50 PM", "5:06 PM", "17:05"],
        ),
        (
            "3 hours 20 minutes",
            ["3 h 20 min", r"3\text{ hours and }20\text{ minutes}", "3 hrs, 20 mins"],
            ["3 hours 25 minutes", "20 hours 3 minutes", "3 hours", "23"],
        ),
        ("4 feet 5 inches", ["4 ft 5 in"], ["5 feet 4 inches", "4 feet"]),
    ],
    "in words": [
        ("14", ["fourteen", r"\text{Fourteen}"], ["forty", "four", "one four"]),
        (r"\text{thirty-one}", ["31", "thirty one"], ["13", "30"]),
        (r"\frac{3}{8}", ["three eighths", "three-eighths"], ["three eight", "eighth", "8/3"]),
        (r"\frac{5}{2}", ["two and a half"], ["a half", "two halves"]),
        (
            r"\text{no solution}",
            ["There are no solutions", r"\emptyset", "none", "the empty set"],
            ["0", "one solution", r"\{0\}", "no real solutions", "infinitely many solutions"],
        ),
        (
            r"\text{does not exist}",
            ["DNE", "The limit does not exist."],
            ["exists", "0", "undefined"],
        ),
        (r"-\infty", [r"\text{negative infinity}"], ["infinity"]),
        (r"\mathbb{R}", ["all real numbers", r"(-\infty, \infty)", "ℝ"], ["R", r"[0, \infty)"]),
        (
            r"\text{hyperbola}",
            ["a hyperbola", r"\text{The hyperbola}"],
            ["parabola", "not a hyperbola"],
        ),
        ("Monday", ["on Monday", "*Monday*", "__Monday__"], ["Sunday"]),
    ],
    "introduced": [
        (
            "-8",
            [
                "The answer is -8.",
                r"\text{Answer: } -8",
                "**Answer:** $-8$",
                "= -8",
                "exactly -8",
                r"So, the final answer is $\boxed{-8}$.",
            ],
            ["The answer is 8", "The answer is not -8", "maybe -8", "-8 or 8", "about -8.2"],
        ),
        (
            r"\frac{2}{9}",
            [r"Therefore, the value is $\frac{2}{9}$"],
            [r"The value is $\frac{9}{2}$"],
        ),
        (r"\approx 4.81", ["4.81"], ["4.8"]),
    ],
    "choice": [
        (
            "C",
            ["choice C", "Option C", "C)", "(C) $24$", r"\textbf{(C)}\ \sqrt{5}"],
            ["choice D", "(B) $24$", "(B) or (C)", r"\text{B or C}", "(C), (D)", "(C) and (D)"],
        ),
        ("24", ["(C) 24"], ["(C) 25", "(C)"]),
        ("A, E", [r"\text{A and E}", r"\text{E, A}"], [r"\text{A and B}", "A"]),
        ("(D) 6", ["D", "(D) 6"], ["(D) 7", "(E) 6", "E"]),
    ],
    "more spellings": [
        ("12", ["So $x = 12$.", "Hence, $12$", "12 in total"], ["So 12 or 13", "not 12"]),
        (
            "E",
            ["The correct option is E.", "the correct choice is (E)"],
            ["(B) E", "The option is not E"],
        ),
        (r"\frac{1}{5}", ["one fifth"], ["fifth", "5th"]),
        ("4000000", ["four million"], ["four thousand"]),
        (
            r"\begin{pmatrix} 2 & 9 \\ 4 & 7 \end{pmatrix}",
            ["[[2, 9], [4, 7]]"],
            ["[[2, 4], [9, 7]]", "[2, 9, 4, 7]"],
        ),
        (r"(-2, 1) \cup (3, 5)", ["(-2,1) U (3,5)"], ["(-2,1) U (3,6)"]),
        ("3, 8", ["x_1 = 8, x_2 = 3"], ["x_1 = 8, x_2 = 4", "x = 3, y = 8, z = 1"]),
        (r"70^\circ", ["70 deg"], ["71 deg"]),
        ("25", ["25 sq. units"], ["26 sq. units"]),
        ("v_2", [], ["v_{2}'", "v'"]),
        (r"\sqrt{7}", ["sqrt7"], ["7sqrt"]),
    ],
    "unit vectors": [
        (
            r"3\mathbf{i} - 4\mathbf{j} + \mathbf{k}",
            [r"3\hat{i} - 4\hat{j} + \hat{k}", r"3\vec{i}-4\vec{j}+\vec{k}"],
            [r"3\hat{i} + 4\hat{j} + \hat{k}", r"-4\hat{i} + 3\hat{j} + \hat{k}"],
        ),
    ],
}
