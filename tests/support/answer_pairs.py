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
}
